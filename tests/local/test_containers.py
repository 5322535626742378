"""The environment variables that the local stack writes for `sam local`."""

import json

import pytest

from local import containers
from local.functions import FUNCTIONS, TEMPLATE
from local.stack import LocalStack
from shared.settings import IngestSettings, ScalerSettings, WorkerSettings
from tests.support.sam import ROOT

SETTINGS = {"IngestFunction": IngestSettings, "ScaleFunction": ScalerSettings}
pytestmark = pytest.mark.xdist_group("stack")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """The file's content, written by a stack on a machine without Docker."""
    home = tmp_path_factory.mktemp("home")
    with LocalStack(home / "stack") as stack, containers.reachable(stack, home, None) as file:
        found: dict[str, dict[str, str]] = json.loads(file.read_text())
    assert not (home / containers.VARIABLES).exists()
    return found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_a_value_for_each_variable(written: dict[str, dict[str, str]], name: str) -> None:
    """`sam local` sets the variables of the template to the values in the file, so none may be missing."""
    settings = SETTINGS.get(name, WorkerSettings)

    assert set(TEMPLATE.variables(name)) == set(written[name])
    assert settings.from_environment(written[name])


def test_samconfig_names_the_file() -> None:
    """Both `sam local` commands read it from the folder that `make up` uses."""
    text = (ROOT / "samconfig.toml").read_text()

    assert 2 == text.count(f'env_vars = ".local/{containers.VARIABLES}"')
