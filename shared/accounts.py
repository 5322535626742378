"""How accounts stand in Redis.

One hash per account, `account:<account>`, with `database`, `status` and `revoked_key_ids` (separated by commas), and a
sentinel, `account:.applied`, which no account can be called. An empty Redis has no sentinel: its answers say nothing
about accounts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from shared import names
from shared.errors import InvalidAccountError

SENTINEL = "account:.applied"
FIELDS = ("database", "status", "revoked_key_ids")

Status = Literal["active", "disabled"]


@dataclass(frozen=True, slots=True)
class Account:
    """Where an account's rows go.

    Attributes:
        database: the Treasure Data database.
        status: rows of a disabled account are set aside.
        revoked_key_ids: rows that came by one of these keys are set aside.
    """

    database: str
    status: Status = "active"
    revoked_key_ids: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Refuse what no account can be."""
        if not names.is_database(self.database):
            raise InvalidAccountError(f"{self.database!r} cannot be a database: 3 to 128 of a-z, 0-9 and _")
        if self.status not in ("active", "disabled"):
            raise InvalidAccountError(f"status is active or disabled, not {self.status!r}")

    def to_fields(self) -> dict[str, str]:
        """Return the hash's fields."""
        return {
            "database": self.database,
            "status": self.status,
            "revoked_key_ids": ",".join(sorted(self.revoked_key_ids)),
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, str | None]) -> "Account":
        """Return the account that the hash's fields describe.

        Raises:
            InvalidAccountError: they describe none.
        """
        revoked = (fields.get("revoked_key_ids") or "").split(",")
        return cls(
            database=fields.get("database") or "",
            status=cast("Status", fields.get("status") or "active"),
            revoked_key_ids=frozenset(key_id for key_id in revoked if key_id),
        )


def redis_key(account: str) -> str:
    """Return the name of an account's hash."""
    return f"account:{account}"
