"""Fixtures that these tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.artifacts import artifacts
from tests.support.emulation import Stack, deployed, networks

__all__ = ["artifacts"]


@pytest.fixture(scope="session")
def stack(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack, brought up by one deploy, and taken down by `sluice certify --teardown`, which proves that nothing is left."""
    folder = tmp_path_factory.mktemp("deploy")
    with deployed(folder, artifacts) as made:
        yield made

        buckets = {made.outputs["AsideBucket"], made.outputs["SdkBucket"]}
        code, said, errors = made.certify(
            "--only", "doctor", "--teardown", "--despite-traffic", folder=folder
        )
        assert 0 == code, f"{said}{errors}"
        assert [] == made.emulator.client("kinesis").list_streams()["StreamNames"]
        assert [] == made.emulator.client("lambda").list_functions()["Functions"]
        assert [] == networks(made.emulator)
        assert buckets.isdisjoint(
            found["Name"] for found in made.emulator.client("s3").list_buckets()["Buckets"]
        )
