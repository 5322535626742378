"""Sets a deployed stack up, from the Treasure Data key to the first row.

The stack itself says what is left to do, so a setup can be interrupted anywhere, continued, and run again without harm.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ops import accounts_file, known_accounts, screen
from ops.commands import accounts
from ops.deploy.first_row import TABLE, FirstRow
from ops.deploy.preflight.planning import surveyed
from ops.deploy.preflight.survey import Deployment, Survey
from ops.deploy.preflight.treasure_data import endpoints, treasure_data
from ops.deploy.stack_api import StackApi
from ops.deploy.td_client import QueryForbiddenError, TreasureDataQueries, td_client
from ops.failure import Failure, if_there
from ops.signing_secrets import newest_key, signing_secrets
from ops.stack import Stack
from ops.state.finding import Finding, ok, warning
from shared.accounts import Account
from shared.clock import Clock


@dataclass(frozen=True, slots=True)
class SetupAnswers:
    """What the operator has answered on the command line.

    Attributes:
        key_file: the file with the Treasure Data API key, `-` for standard input; None to ask for it if the stack has none.
        accounts: accounts.yaml; it is written if it does not exist.
        account: the account for the first row; empty for the first active one.
        database: the database of that account, for an accounts.yaml that does not exist; empty to ask for it.
        yes: whether to ask nothing.
        patience: for how many seconds to wait until a query sees the first row.
    """

    key_file: Path | None = None
    accounts: Path = Path("accounts.yaml")
    account: str = ""
    database: str = ""
    yes: bool = False
    patience: float = 1800.0


def read_key(file: Path) -> str:
    """Return the API key in a file, or on standard input if the file is `-`.

    Raises:
        Failure: it cannot be read, or is empty.
    """
    try:
        key = (sys.stdin.read() if str(file) == "-" else file.read_text()).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(
            f"{file} cannot be read ({error}): name the file with the key, `--td-key-file FILE`"
        ) from error
    if not key:
        raise Failure(f"{file} is empty: put the Treasure Data API key there, `--td-key-file {file}`")
    return key


def ask_key(*, yes: bool) -> str:
    """Ask for the API key, without showing it.

    Raises:
        Failure: nothing may be asked, or there is nobody to answer.
    """
    question = "Treasure Data API key (a Master key, not Write-only; hidden)"
    return screen.ask(
        question, "`--td-key-file FILE` gives the Treasure Data API key", yes=yes, hidden=True
    ).strip()


@dataclass
class StackSetup:
    """Sets up one stack. The account of the first row, and its write key, are known after its step."""

    stack: Stack
    answers: SetupAnswers
    clock: Clock
    account: str = ""
    key: str = ""
    _td_key: str = ""
    _wanted: dict[str, Account] = field(default_factory=dict)

    def steps(self) -> Iterator[Finding]:
        """Do what is left to do, and yield the result of each step.

        Raises:
            Failure: a step failed; the message names the next command.
        """
        yield self._choose()
        yield from self._store_key()
        yield self._apply()
        yield self._send()

    def _choose(self) -> Finding:
        """Read accounts.yaml, or write it, and choose the account of the first row."""
        file, said = self.answers.accounts, "read"
        if not file.exists():
            said = "written"
            found = known_accounts.known(self.stack)
            known_accounts.note_damaged(self.stack, found)
            screen.write(file, accounts_file.text_of(found.accounts or self._first_account()))
        self._wanted = accounts_file.read(file)
        active = [name for name, one in sorted(self._wanted.items()) if one.status == "active"]
        wanted, database = self.answers.account, self.answers.database
        fitting = [
            name for name in active if wanted in ("", name) and database in ("", self._wanted[name].database)
        ]
        if not fitting:
            raise Failure(
                f"{file} has no active account{f' {wanted}' if wanted else ''}{f' with the database {database}' if database else ''}: "
                f"add it, then run `sluice setup {self.stack.option}` again"
            )
        self.account = fitting[0]
        return ok(str(file), f"{said}; the account {self.account} goes to the database {self._database}")

    def _first_account(self) -> dict[str, Account]:
        database = self.answers.database or screen.ask(
            "Treasure Data database for the first account",
            "`--database NAME` gives the first account's Treasure Data database",
            yes=self.answers.yes,
        )
        try:
            made = Account(database)
        except ValueError as error:
            raise Failure(f"{error}: use another `--database NAME`") from error
        account = self.answers.account or database
        if said := known_accounts.misnamed(account):
            raise Failure(f"{said}, `--account NAME`")
        return {account: made}

    @property
    def _database(self) -> str:
        return self._wanted[self.account].database

    def _store_key(self) -> Iterator[Finding]:
        """Store the API key, unless the stack has it, once Treasure Data has accepted it."""
        stored = self._stored_key()
        given = read_key(self.answers.key_file) if self.answers.key_file else ""
        self._td_key = given or stored or ask_key(yes=self.answers.yes)
        found = self._judged()
        if (
            self._td_key == stored
            and not given
            and (faults := [one for one in found if one.state == "fault"])
        ):
            if self.answers.yes or faults[0].what != "API key":
                raise self._refused(faults[0])
            screen.note(f"The stored key does not work. {faults[0].said} {faults[0].advice}")
            self._td_key = ask_key(yes=False)
            found = self._judged()
        for one in found:
            if one.state == "fault":
                raise self._refused(one)
            yield one
        if self._td_key == stored:
            yield ok("key in the stack", "stored before")
            return
        client = self.stack.client("secretsmanager")
        client.put_secret_value(SecretId=self.stack.outputs["TdApiKeySecret"], SecretString=self._td_key)
        yield ok("key in the stack", "stored now")

    def _refused(self, found: Finding) -> Failure:
        advice = found.advice.rstrip(".")
        return Failure(
            f"{found.what}: {found.said} {advice}; then run `sluice setup {self.stack.option} --td-key-file FILE`"
        )

    def _stored_key(self) -> str:
        client = self.stack.client("secretsmanager")
        found = if_there(client.get_secret_value, SecretId=self.stack.outputs["TdApiKeySecret"])
        return found.get("SecretString", "").strip() if found else ""  # the stack creates it without a value

    def _judged(self) -> list[Finding]:
        """Return what Treasure Data makes of the key, from this machine."""
        return list(treasure_data(self._survey()))

    def _survey(self) -> Survey:
        stack = self.stack
        plan = Deployment(stack.name, str(stack.session.region_name), stack.parameters, None)
        return surveyed(plan, self._td_key, self._database)

    def _apply(self) -> Finding:
        """Apply accounts.yaml, unless the stack has all of it."""
        found = known_accounts.known(self.stack)
        result, damaged = found.accounts | self._wanted, found.damaged.keys() & self._wanted.keys()
        count = screen.plural(len(self._wanted), "account")
        if found.applied_at is not None and not list(
            known_accounts.differences(found.accounts, result, damaged)
        ):
            return ok("accounts", f"{count}, applied before")
        words = [str(self.answers.accounts), *(["--yes"] if self.answers.yes else [])]
        accounts.apply.main(words, standalone_mode=False, obj=self.stack)
        return ok("accounts", f"{count}, applied now")

    def _send(self) -> Finding:
        """Send the first row, and wait until a query sees it."""
        signing = signing_secrets(self.stack)
        self.key = newest_key(self.account, signing, self._wanted[self.account].revoked_key_ids)
        td = td_client(*endpoints(self._survey()), self._td_key)
        api = StackApi.of(self.stack, self.clock)
        row = FirstRow(
            stack=self.stack,
            api=api,
            queries=TreasureDataQueries(td, self.clock, self._database),
            account=self.account,
            database=self._database,
            clock=self.clock,
        )
        where = f"{self._database}.{TABLE}, event_id {row.event_id}"
        try:
            if row.is_seen():
                return ok("first row", f"seen by a query before: {where}")
            row.send(self.key)
            seconds = row.wait(self.answers.patience)
        except QueryForbiddenError:
            row.send(self.key)
            return warning(
                "first row",
                f"Accepted. The API key may not query, so look for it in Treasure Data's console: {where}.",
                f"To exclude duplicates, store a Master key with `sluice setup {self.stack.option} --td-key-file FILE`.",
            )
        return ok("first row", f"seen by a query after {screen.lasting(seconds)}: {where}")
