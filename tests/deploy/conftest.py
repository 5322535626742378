"""Fixtures that these tests share."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.artifacts import artifacts
from tests.support.emulation import Stack, deployed, remove

__all__ = ["artifacts"]


@pytest.fixture(scope="session")
def stack(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack, created by one deploy and deleted by `sluice remove`, as the deployer. Nothing of it may be left."""
    folder = tmp_path_factory.mktemp("deploy")
    with deployed(folder, artifacts) as made:
        yield made

        buckets = {made.outputs["DataBucket"], made.outputs["SdkBucket"]}
        made.put("unmapped", "last_words", "/left-behind")
        assert made.dead()
        remove(made.emulator, made.name)
        assert [] == made.emulator.client("kinesis").list_streams()["StreamNames"]
        assert [] == made.emulator.client("lambda").list_functions()["Functions"]
        assert all(vpc["IsDefault"] for vpc in made.emulator.client("ec2").describe_vpcs()["Vpcs"])
        left = made.emulator.client("s3").list_buckets()["Buckets"]
        assert buckets.isdisjoint(found["Name"] for found in left)


@pytest.fixture(scope="session")
def uploaded(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the stack's template. It names the code that the deploy has uploaded, so other deploys need not zip it."""
    folder = tmp_path_factory.mktemp("uploaded")
    body = stack.emulator.client("cloudformation").get_template(StackName=stack.name)["TemplateBody"]
    (folder / "template.yaml").write_text(body if isinstance(body, str) else json.dumps(body))
    return folder
