"""What is decided about records before anything is sent: where a span ends and where its rows go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared.accounts import Account
from worker.accounts import DISABLED, REVOKED
from worker.chunk import Groups, group
from worker.record import NOBODY, Number, Record

UNRESOLVED = "unresolved"
"""Why rows are parked that were held for too long because their account could not be asked for."""

MAX_GROUPS = 1000
MAX_NAME_BYTES = 48 * 1024
"""With these a span's item stays below DynamoDB's 400 KB, whatever becomes of its chunks."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A stretch of records and where their rows go.

    Attributes:
        records: the stretch.
        databases: by owner the database, or `!` and the reason why its rows are set aside.
        groups: the records' blocks by owner and table.
    """

    records: Sequence[Record]
    databases: dict[str, str]
    groups: Groups

    @property
    def counts(self) -> dict[str, int]:
        """Rows by `owner/table`."""
        return {
            f"{owner}/{table}": sum([block[1] for block in blocks])
            for (owner, table), blocks in self.groups.items()
        }


def accounts_of(records: Sequence[Record]) -> list[str]:
    """Return the accounts that the records name, each once."""
    return [account for account in dict.fromkeys([record[2][1] for record in records]) if account != NOBODY]


def plan(
    records: Sequence[Record],
    answers: Mapping[str, Account | str],
    limit: Number | None = None,
    too_old: float = 0,
) -> Plan:
    """Plan the longest stretch from the first record on; nothing when the first one must wait.

    Args:
        records: in the stream's order.
        answers: where accounts' rows go, or why nowhere; an account without an answer ends the stretch.
        limit: sequence number before which the stretch must end.
        too_old: UNIX seconds; records that arrived earlier wait for no account any longer.
    """
    stretch = _stretch(records, answers, limit, too_old)
    while True:
        databases, owners = _destinations(stretch, answers)
        groups = group(stretch, owners)
        if len(stretch) == 1 or (len(groups) <= MAX_GROUPS and _size(groups, databases) <= MAX_NAME_BYTES):
            return Plan(stretch, databases, groups)
        stretch = stretch[: len(stretch) // 2]


def owners_of(records: Sequence[Record], databases: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """Return, by account and key id, who owns the records' rows in a plan that was made before."""
    owners: dict[tuple[str, str], str] = {}
    for _, _, content in records:
        account, key_id = content[1], content[2]
        if (account, key_id) in owners:
            continue
        revoked = f"{account}:{key_id}"
        if revoked in databases:
            owners[account, key_id] = revoked
        elif account in databases or account == NOBODY:
            owners[account, key_id] = account
    return owners


def _stretch(
    records: Sequence[Record], answers: Mapping[str, Account | str], limit: Number | None, too_old: float
) -> Sequence[Record]:
    waits = set(accounts_of(records)) - answers.keys()
    if not waits and limit is None:
        return records
    for index, (number, arrived_at, content) in enumerate(records):
        if limit is not None and number >= limit:
            return records[:index]
        if content[1] in waits and arrived_at >= too_old:
            return records[:index]
    return records


def _destinations(
    records: Sequence[Record], answers: Mapping[str, Account | str]
) -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    databases: dict[str, str] = {}
    owners: dict[tuple[str, str], str] = {}
    for account, key_id in dict.fromkeys([(record[2][1], record[2][2]) for record in records]):
        if account == NOBODY:
            owners[account, key_id] = account
            continue
        answer = answers.get(account)
        owner = account
        if answer is None:
            destination = f"!{UNRESOLVED}"
        elif isinstance(answer, str):
            destination = f"!{answer}"
        elif answer.status == "disabled":
            destination = f"!{DISABLED}"
        elif key_id in answer.revoked_key_ids:
            owner, destination = f"{account}:{key_id}", f"!{REVOKED}"
        else:
            destination = answer.database
        databases[owner] = destination
        owners[account, key_id] = owner
    return databases, owners


def _size(groups: Groups, databases: Mapping[str, str]) -> int:
    names = sum(len(owner) + len(table) for owner, table in groups)
    return names + sum(len(owner) + len(database) for owner, database in databases.items())
