"""The command as `uv tool install .` and `pip install .` install it, outside the repository."""

import json
import re
import zipfile
from email import message_from_string
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import pytest
from mcp import Client
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from local import recording
from ops.help_page import DEPLOY
from tests.support import installation
from tests.support.installation import PROJECT, Installation, required, requirements
from tests.support.mcp_client import talk, text_of
from tests.support.sam import ROOT

LOADED = """
import json, sys
from importlib.metadata import packages_distributions
import ops.cli
import ops.deploy.preflight.dns_records  # imported when a preflight needs it

names = packages_distributions()
print(json.dumps(sorted({name for module in sys.modules for name in names.get(module.partition(".")[0], ())})))
"""

NO_LOCAL_STACK = """\
the local stack is not installed (crawleruseragents, moto, redis): \
run `uvx --from 'sluice-0.1.0-py3-none-any.whl[local]' sluice local` instead, \
or in a clone `uv tool install '.[local]'`"""
NO_MCP = """\
the extra `mcp` is not installed: run `uvx --from 'sluice-0.1.0-py3-none-any.whl[mcp]' sluice mcp` instead, \
or in a clone `uv tool install '.[mcp]'`"""


def test_requirements_are_bounded_around_the_tested_versions() -> None:
    """A user gets no version that is older than the tested one, and none that may break the interface that is used."""
    lines = (ROOT / "requirements/dev.txt").read_text()
    locked = dict(re.findall(r"^([\w.-]+)==([\w.]+)", lines, re.MULTILINE))
    texts = [*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())]

    for requirement in map(Requirement, texts):
        tested = locked[canonicalize_name(requirement.name)]
        lowest, highest = (
            next(one.version for one in requirement.specifier if one.operator == operator)
            for operator in (">=", "<")
        )
        assert tested in requirement.specifier, requirement
        assert tested.startswith(lowest), requirement
        assert Version(highest).major <= Version(tested).major + 1, requirement


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, with an artifact that is empty."""
    return installation.wheel(tmp_path_factory.mktemp("wheel"), {"sluice-0.1.0-arm64.zip": b""})


@pytest.fixture(scope="module")
def plain(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """`pip install .`."""
    return Installation(tmp_path_factory.mktemp("plain"), wheel)


def test_the_command_runs_outside_the_repository(plain: Installation) -> None:
    """As in a clone, but it deploys itself. It imports every base requirement: what only the local stack needs is in the extra."""
    (entry_points,) = plain.site.glob("sluice-*.dist-info/entry_points.txt")
    done = plain.run("-m", "ops", "status", "--local")
    deploys = plain.run("-c", "from ops.help_page import DEPLOY; print(DEPLOY)")

    assert "sluice = ops.__main__:main" in entry_points.read_text()
    assert (1, "") == (done.returncode, done.stdout)
    assert "Error: the local stack is not running: start it with `sluice local` or `make up`\n" == done.stderr
    assert ("`sluice deploy`\n", "`sam deploy`") == (deploys.stdout, DEPLOY)
    for path in (
        "ops/artifacts/sluice-0.1.0-arm64.zip",  # `sluice deploy` finds it beside the command
        *("ops/console/page/index.html", "local/page/sections.html", "local/site/shop.html"),
        "sdk/dist/snippet.html",
    ):
        assert (plain.site / path).exists(), path
    assert not (plain.site / "sdk/src").exists()
    loaded = {canonicalize_name(name) for name in json.loads(plain.run("-c", LOADED).stdout)}
    assert [] == [text for text in requirements() if canonicalize_name(Requirement(text).name) not in loaded]


@pytest.mark.parametrize(("line", "said"), [("local", NO_LOCAL_STACK), ("mcp --local", NO_MCP)])
def test_an_extra_that_is_missing_is_named(plain: Installation, line: str, said: str) -> None:
    """Without it, the command says in one sentence what to install."""
    done = plain.run("-m", "ops", *line.split())

    assert (1, "", f"Error: {said}\n") == (done.returncode, done.stdout, done.stderr)


def test_the_mcp_server_runs_outside_the_repository(wheel: Path, tmp_path: Path) -> None:
    """With the extra, and without that of the local stack, a client lists its tools and calls one."""
    installed = Installation(tmp_path, wheel, "mcp")

    async def use(client: Client) -> tuple[int, str]:
        listed = await client.list_tools()
        return len(listed.tools), text_of(await client.call_tool("status"))

    assert (8, "Error: the local stack is not running: start it with `sluice local` or `make up`") == talk(
        use, installed.home, python=installed.python, cwd=installed.home
    )


@pytest.mark.xdist_group("stack")
def test_the_local_stack_runs_outside_the_repository(wheel: Path, tmp_path: Path) -> None:
    """With the extra installed, an event goes through the whole pipeline."""
    pixel = next(request for request in recording.read() if request.method == "GET")
    recording.write([pixel], tmp_path / "pixel.jsonl")

    installed = Installation(tmp_path / "local", wheel, "local")
    done = installed.run("-m", "local.demo", "--requests", str(tmp_path / "pixel.jsonl"))

    assert (0, "") == (done.returncode, done.stderr), done.stdout
    assert "accepted 1 = delivered 1 + dead 0" in done.stdout


@pytest.mark.parametrize("extra", ["", *PROJECT["optional-dependencies"]])
def test_the_wheel_pins_everything_that_it_needs(wheel: Path, extra: str) -> None:
    """Its metadata names each package that it imports, directly or not, in the version that the tests run with."""
    with zipfile.ZipFile(wheel) as packed:
        (name,) = (name for name in packed.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = message_from_string(packed.read(name).decode())
    found = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    pins = {
        canonicalize_name(one.name): str(one.specifier)
        for one in found
        if one.marker is None or one.marker.evaluate({"extra": extra})
    }

    assert {name: f"=={version(name)}" for name in required(requirements(extra))} == pins
