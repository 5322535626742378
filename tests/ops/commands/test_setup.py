"""`sluice setup`, on the local stack presented as a deployed one."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from uuid import uuid4

import boto3
import pytest
from click.testing import Result
from redis import Redis

from doubles.clock import ManualClock
from doubles.iam import REGION
from doubles.treasure_data import API_KEY
from ops.deploy.first_row import FirstRow
from ops.deploy.stack_api import HttpAnswer, StackApi
from ops.deploy.stack_setup import SetupAnswers, StackSetup
from ops.stack import Stack
from ops.stack import deployed as stack_named
from shared.clock import SystemClock
from tests.support.deployed import NAME, Deployed, deployed
from tests.support.sluice import Sluice

pytestmark = pytest.mark.xdist_group("setup")

NO_QUERIES: Any = None


class Site:
    """A deployed stack that nobody has set up, and a folder for the operator's files: no key, no accounts, no files."""

    def __init__(self, stack: Deployed, sluice: Sluice, folder: Path) -> None:
        self.stack = stack
        self.sluice = sluice
        self.folder = folder
        self.key_file = folder / "key"
        self.key_file.write_text(f"{API_KEY}\n")
        self.accounts = folder / "accounts.yaml"
        self.account = f"site_{uuid4().hex[:8]}"  # the worker remembers a name's database for a minute
        self.database = f"{self.account}_events"

    def secrets(self) -> Any:
        """Return a client of the stack's secrets."""
        return self.sluice.stack.resources.client("secretsmanager")

    def forget(self) -> None:
        """Give the stack a key secret without a value and an empty Redis, as a deploy leaves them."""
        name = self.sluice.stack.resources.td_api_key_secret
        with suppress(self.secrets().exceptions.ResourceNotFoundException):
            self.secrets().delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
        self.secrets().create_secret(Name=name)
        with Redis.from_url(self.sluice.stack.addresses.redis) as redis:
            redis.flushdb()

    def run(self, *more: str, answer: str = "") -> Result:
        """Run the command with the operator's files."""
        return self.stack.run(["setup", "--accounts", str(self.accounts), "--timeout", "120s", *more], answer)

    def unattended(self, *more: str) -> Result:
        """Run it without questions, with all answers."""
        answers = f"--td-key-file {self.key_file} --database {self.database} --account {self.account} --yes"
        return self.run(*answers.split(), *more)

    def rows(self) -> list[str]:
        """Return the first rows that Treasure Data has."""
        return self.sluice.rows(self.database, "sluice_setup")


@pytest.fixture
def site(sluice: Sluice, tmp_path: Path) -> Iterator[Site]:
    """The stack before its setup. Afterwards it has its key again."""
    with deployed(sluice.stack) as stack:
        made = Site(stack, sluice, tmp_path)
        made.forget()
        yield made
        sluice.heal()
        made.forget()
        key_secret = sluice.stack.resources.td_api_key_secret
        made.secrets().put_secret_value(SecretId=key_secret, SecretString=API_KEY)


def test_it_leads_to_the_first_row(site: Site) -> None:
    """With two answers, the key and a database, it ends with a row that a query sees and with code to paste. --json answers no question."""
    refused = site.run("--json", answer=f"{site.database}\n{API_KEY}\nn\n")
    assert (1, []) == (refused.exit_code, site.rows())
    assert "Apply these changes?" in refused.stderr
    site.accounts.unlink()
    site.forget()
    result = site.run(answer=f"{site.database}\n{API_KEY}\ny\n")

    assert 0 == result.exit_code, f"{result.output}{result.stderr}{result.exception}"
    assert f"{site.database}:\n  database: {site.database}\n" == site.accounts.read_text()
    stored = site.secrets().get_secret_value(SecretId=site.sluice.stack.resources.td_api_key_secret)
    assert API_KEY == stored["SecretString"]
    assert 1 == len(site.rows())
    assert API_KEY not in f"{result.output}{result.stderr}"
    for part in ("pixel.gif?k=", "a month without traffic", "sluice certify --stack sluice-dev --region"):
        assert part in result.output


def test_it_runs_without_questions(site: Site) -> None:
    """A second run changes nothing; the key is the first one of the newest secret that the account has not revoked."""
    revoked = f"{site.account}: {{database: {site.database}, revoked_key_ids: [next, next-2]}}\n"
    site.accounts.write_text(revoked)
    result = site.unattended("--json")
    said = json.loads(result.stdout)
    site.stack.calls.clear()
    again = site.run("--yes")

    assert (0, site.account) == (result.exit_code, said["account"])
    assert said["key"].startswith(f"{site.account}.next-3.")
    assert {"idle", "expected", "worst"} == said["usd_per_month"].keys()
    assert said["remove"].startswith("sluice remove --stack sluice-dev --region")
    assert ["ok"] == sorted({one["state"] for one in said["steps"]})
    assert 0 == again.exit_code, again.stderr
    assert f"\n{said['key']}\n" in again.output
    for part in ("stored before", "applied before", "seen by a query before"):
        assert part in again.output
    assert "revoked" not in again.stderr
    assert not any("Put" in call for call in site.stack.calls)
    assert 1 == len(site.rows())


def test_a_key_that_may_not_query_ends_with_the_command_that_stores_another(site: Site) -> None:
    """The row is sent all the same."""
    site.sluice.td("faults", {"kind": "status", "status": 403, "action": "query"})
    result = site.unattended()

    assert 0 == result.exit_code, result.stderr
    assert "`sluice setup --stack sluice-dev --region us-east-1 --td-key-file FILE`" in result.output


class StoppedError(Exception):
    """The setup was stopped here."""


@pytest.mark.parametrize("after", range(1, 7))
def test_it_continues_after_an_interruption(site: Site, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped anywhere, it ends with exactly one row: it may send its event again, because it cannot know that it had."""
    for name, value in site.stack.environment.items():
        monkeypatch.setenv(name, value)
    stack, clock = stack_named(NAME, REGION), SystemClock()
    answers = SetupAnswers(site.key_file, site.accounts, site.account, site.database, yes=True, patience=60.0)

    def interrupted() -> None:
        for count, _ in enumerate(StackSetup(stack, answers, clock).steps(), 1):
            if count == after:
                raise StoppedError

    with pytest.raises(StoppedError):
        interrupted()
    setup = StackSetup(stack, answers, clock)
    assert {"ok"} == {one.state for one in setup.steps()}
    row = FirstRow(stack, StackApi.of(stack, clock), NO_QUERIES, site.account, site.database, clock)
    row.send(setup.key)
    site.sluice.settled()

    assert [row.event_id] == site.rows()


@pytest.mark.parametrize("code", ["unknown_account", "disabled_account", "revoked_key"])
def test_what_was_applied_a_moment_ago_need_not_have_arrived(code: str) -> None:
    """The ingest learns of accounts within a minute, so the event is sent again until then."""
    answers = [HttpAnswer(403, code, b"", 0.1)] * 12 + [HttpAnswer(200, "", b"", 0.1)]
    clock = ManualClock(1_800_000_000.0)

    stack = Stack(NAME, {"LedgerTable": "ledger"}, boto3.Session(region_name=REGION))
    api = Mock(spec=StackApi, request=Mock(side_effect=answers))
    FirstRow(stack, api, NO_QUERIES, "site", "events", clock).send("site.k1.mac")

    assert len(answers) == api.request.call_count


Cause = Callable[[Site], object]


def _td_fault(**fault: Any) -> Cause:
    return lambda site: site.sluice.td("faults", fault)


def _accounts(text: str) -> Cause:
    return lambda site: site.accounts.write_text(text.replace("ACCOUNT", site.account))


FAULTS: dict[str, tuple[Cause, str]] = {
    "no signing secret": (
        lambda site: site.secrets().put_secret_value(
            SecretId=site.sluice.stack.resources.write_key_secret, SecretString="{}"
        ),
        "docs/operations.md#keys",
    ),
    "no key file": (lambda site: site.key_file.unlink(), "`--td-key-file FILE`"),
    "key that nobody knows": (lambda site: site.key_file.write_text(f"1/{'ab' * 20}"), "--td-key-file FILE`"),
    "key that may not import": (_td_fault(kind="status", status=403, action="import"), "--td-key-file FILE`"),
    "Treasure Data is down": (_td_fault(kind="status"), "`sluice setup --stack"),
    "imports fail": (_td_fault(kind="status", action="import"), "`sluice status --stack"),
    "accounts.yaml names no database": (_accounts("shop: {}\n"), "`shop: {database: …}`"),
    "accounts.yaml has only disabled accounts": (
        _accounts("ACCOUNT: {database: some_events, status: disabled}\n"),
        "`sluice setup --stack",
    ),
    "accounts.yaml cannot be written": (
        lambda site: setattr(site, "accounts", site.folder / "nowhere" / "accounts.yaml"),
        "`mkdir -p",
    ),
    "a tracking plan rejects the event": (
        _accounts("ACCOUNT: {database: ACCOUNT_events, plan: {mode: quarantine, tables: {}}}\n"),
        "docs/tracking-plan.md",
    ),
}


def _check_failure(result: Result, expected: str) -> None:
    """Check that one line says what happened and which command or page helps, and never shows the key."""
    assert 1 == result.exit_code, f"{result.output}{result.stderr}{result.exception!r}"
    (line,) = [one for one in result.stderr.splitlines() if one.startswith("Error: ")]
    assert expected in line
    assert API_KEY not in line


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_ends_with_the_next_command(site: Site, name: str) -> None:
    """Whatever is missing or broken, one line says what to do."""
    cause, expected = FAULTS[name]
    cause(site)

    _check_failure(site.unattended("--timeout", "3s"), expected)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--database events", "`--td-key-file FILE`"),
        ("", "`--database NAME`"),
        ("--td-key-file KEY --database events --account My-Shop", "`--account NAME`"),
        ("--td-key-file KEY --database Shop-Events", "`--database NAME`"),
    ],
)
def test_a_missing_or_wrong_answer_ends_with_its_option(site: Site, options: str, expected: str) -> None:
    """Without questions, each answer has an option."""
    words = options.replace("KEY", str(site.key_file)).split()

    _check_failure(site.run("--yes", *words), expected)
