"""If something goes wrong, each command prints one line with what to do, and no traceback."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result

from local.accounts import KEYS
from ops.help_page import DEPLOY, RIGHTS, RIGHTS_TO_DEPLOY
from tests.ops.deploy.test_rights import LINES
from tests.support.deployed import Deployed, deployed
from tests.support.sluice import Sluice, until

pytestmark = pytest.mark.xdist_group("manners")

COMMANDS = [line for name, (line, *_) in LINES.items() if name != "cost"]
"""A line for each command that reads a stack."""
ON_REDIS = [one for one in COMMANDS if one.split()[0] in ("accounts", "keys") and "rotate" not in one]


@pytest.fixture
def stack(sluice: Sluice) -> Iterator[Deployed]:
    """The local stack, presented as a deployed one."""
    with deployed(sluice.stack, SdkBucket="nowhere", SdkUrl="http://127.0.0.1:9") as shown:
        yield shown


def words(line: str, folder: Path) -> list[str]:
    """Return the words of a command line. Create the file that it reads."""
    (folder / "accounts.yaml").write_text("shop: {database: shop_events}\n")
    files = {name: folder / name for name in ("out", "sdk", "td_key")}
    made = line.format(file=folder / "accounts.yaml", key=KEYS["app"], dead="0123456789", now="now", **files)
    return made.split()


def said(result: Result) -> str:
    """Return the single error line of a failed command."""
    assert 1 == result.exit_code, (result.output, result.stderr, result.exception)
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line.removeprefix("Error: ")


@pytest.mark.parametrize("line", COMMANDS)
def test_a_stack_that_does_not_exist_is_reported(stack: Deployed, tmp_path: Path, line: str) -> None:
    """The name or the region may be wrong, or nobody has deployed it yet."""
    message = said(stack.run(words(line, tmp_path), stack="sluice-dve"))

    assert message.startswith("there is no stack sluice-dve in region us-east-1: check --stack and --region")
    assert message.endswith(f"{DEPLOY} creates one")


@pytest.mark.parametrize(
    ("line", "service", "operation", "page"),
    [
        ("record -o {out}", "kinesis", "DescribeStreamSummary", RIGHTS),
        ("status", "sqs", "GetQueueAttributes", RIGHTS),
        ("wait --account app --table events --until 1h", "dynamodb", "Query", RIGHTS),
        ("setup --yes", "cloudformation", "DescribeStacks", RIGHTS),
        ("deploy --yes", "cloudformation", "", RIGHTS_TO_DEPLOY),
        ("remove --yes", "cloudformation", "", RIGHTS_TO_DEPLOY),
        ("certify --yes", "cloudformation", "", "docs/certifying.md"),
    ],
)
def test_a_missing_right_is_reported(
    stack: Deployed, tmp_path: Path, line: str, service: str, operation: str, *, page: str
) -> None:
    """The message names the right, who can grant it, and the page with the permissions of the command."""
    with stack.refusing(service, 403, "AccessDeniedException"):
        message = said(stack.run(words(line, tmp_path)))

    assert message.startswith(f"your credentials do not allow {operation}")
    assert message.endswith(f"Ask your AWS administrator for this permission ({page})")


@pytest.mark.parametrize("line", ["status", "doctor --no-event", "replay", "keys verify {key}"])
def test_an_unreachable_network_is_reported(
    stack: Deployed, tmp_path: Path, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message asks the operator to check the network."""
    monkeypatch.setitem(stack.environment, "AWS_ENDPOINT_URL", "http://127.0.0.1:9")

    assert "check your network" in said(stack.run(words(line, tmp_path)))


@pytest.mark.parametrize("line", ON_REDIS)
def test_an_unreachable_redis_is_reported(stack: Deployed, tmp_path: Path, line: str) -> None:
    """The message says that the worker loses no rows. A key is still issued, with a note, and its signature is checked."""
    with stack.answering("AdminFunction", {"error": "redis_unreachable", "message": "Redis does not answer"}):
        result = stack.run(words(line, tmp_path))

    expected = "Redis does not answer. No row is lost: the worker delivers those of accounts that it remembers, and the others wait until Redis is back. Check that Redis"
    if "issue" in line:
        assert (0, True) == (result.exit_code, f"Note: {expected}" in result.stderr)
    elif "verify" in line:
        unsure = "Whether the account is active, and the key not revoked, could not be checked"
        valid = "The signature is valid: account app, key id next"
        assert (3, "") == (result.exit_code, result.stderr)
        assert result.stdout.startswith(f"{valid}. {unsure}: {expected}")
    else:
        assert said(result).startswith(expected)


def test_the_doctor_continues_if_it_lacks_a_right(stack: Deployed) -> None:
    """Checks that need the missing right are unknown. The others still run."""
    with (
        stack.refusing("kinesis", 400, "AccessDeniedException"),
        stack.refusing("monitoring", 400, "AccessDeniedException"),
        stack.answering("AdminFunction", {"error": "redis_unreachable", "message": "Redis does not answer"}),
    ):
        result = stack.run(["doctor", "--no-event"])

    assert (3, "") == (result.exit_code, result.stderr)
    assert "?      stream: your credentials do not allow DescribeStreamSummary" in result.stdout
    assert "FAULT  functions: Redis does not answer" in result.stdout
    assert "ok     ledger" in result.stdout


@pytest.mark.parametrize(("line", "mark"), [("status", "HOLDING: "), ("doctor", "hold   stream: ")])
def test_a_stream_that_fails_is_reported_and_the_rest_too(stack: Deployed, line: str, mark: str) -> None:
    """Nobody has to act, and the exit code says that not all is well. The doctor sends no test event then."""
    with stack.refusing("kinesis", 500, "InternalFailure"):
        result = stack.run([line])

    assert (3, "") == (result.exit_code, result.stderr)
    assert f"{mark}AWS rejected DescribeStreamSummary: InternalFailure" in result.stdout
    assert "No action needed, unless it lasts" in result.stdout
    assert "test event" not in result.stdout


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("replay --shard shardId-9", "there is no shard shardId-9: the stream has shardId-000000000000, "),
        ("record -o {out} --from now", "shardId-000000000000 has no records in this range: use an earlier"),
        (
            "record -o /proc/nothing/x.json",
            "/proc/nothing/x.json cannot be written: No such file or directory: create the folder first, `mkdir -p /proc",
        ),
        ("accounts apply /nowhere.yaml", "/nowhere.yaml cannot be read: No such file or directory"),
        ("accounts show nobody", "there is no account nobody: add it to accounts.yaml and run `sluice acc"),
        ("keys verify nonsense", "invalid key: "),
    ],
)
def test_a_request_that_cannot_be_carried_out_is_reported(
    stack: Deployed, sluice: Sluice, tmp_path: Path, line: str, expected: str
) -> None:
    """The message names the missing shard, record, file or account, or the invalid key."""
    sluice.send("shop", "recorded", "a", "b", "c")

    assert said(stack.run(words(line, tmp_path))).startswith(expected)


def test_the_doctor_sends_a_test_event_and_checks_every_part(stack: Deployed, sluice: Sluice) -> None:
    """It finds the event in Treasure Data."""
    sluice.send("app", "before_the_doctor", "a")  # else there may be no database yet
    until(lambda: sluice.rows("field_app", "before_the_doctor") == ["a"])
    result = stack.run(["doctor", "--json"])

    found = {one["what"]: one["state"] for one in json.loads(result.stdout)["findings"]}
    assert "ok" == found["test event"], result.output
    checked = {"API", "clock", "stream", "Redis", "Treasure Data", "import permission", "query permission"}
    assert checked | {"columns", "write key"} <= found.keys()
