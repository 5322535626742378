"""How accounts are stored in Redis.

Each account is a hash, `<ledger table>:account:<account>`, with the fields `database`, `status`, `revoked_key_ids`
(comma-separated), `limits` and `plan` (JSON, empty if there is none). The prefix separates stacks that share a Redis. A sentinel
with `.applied` (not a legal account name) in place of the account shows that accounts have been applied. Without it, a missing
hash does not mean that the account is unknown.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from shared import json_codec, names
from shared.errors import InvalidAccountError, InvalidJsonError
from shared.policy import AccountLimits, PolicyEntry, Status
from shared.tracking_plan import TrackingPlan

FIELDS = ("database", "status", "revoked_key_ids", "limits")
"""What the worker reads."""
ALL_FIELDS = (*FIELDS, "plan")


@dataclass(frozen=True, slots=True)
class Account:
    """Where an account's rows go.

    Attributes:
        database: the Treasure Data database.
        status: rows of a disabled account are dead.
        revoked_key_ids: rows sent with one of these keys are dead.
        limits: what the account may use.
        plan: its tracking plan; None if it has none, or if the plan was not read.
    """

    database: str
    status: Status = "active"
    revoked_key_ids: frozenset[str] = frozenset()
    limits: AccountLimits = field(default_factory=AccountLimits)
    plan: TrackingPlan | None = None

    def __post_init__(self) -> None:
        """Validate the fields."""
        if not names.is_database(self.database):
            raise InvalidAccountError(
                f"{self.database!r} is not a legal database name: use 3 to 128 characters of a-z, 0-9 and _"
            )
        if self.status not in ("active", "disabled"):
            raise InvalidAccountError(f"status must be active or disabled, not {self.status!r}")

    def to_fields(self) -> dict[str, str]:
        """Return the fields of the Redis hash."""
        limits = self.limits.to_fields()
        return {
            "database": self.database,
            "status": self.status,
            "revoked_key_ids": ",".join(sorted(self.revoked_key_ids)),
            "limits": json_codec.dump(limits) if limits else "",
            "plan": json_codec.dump(self.plan.to_value()) if self.plan else "",
        }

    def to_entry(self) -> PolicyEntry:
        """Return what the edge policy says about the account."""
        return PolicyEntry(self.status, self.revoked_key_ids, self.limits, self.plan)

    @classmethod
    def from_fields(cls, fields: Mapping[str, str | None]) -> "Account":
        """Parse the fields of a Redis hash.

        Raises:
            InvalidAccountError: they are invalid.
        """
        revoked = (fields.get("revoked_key_ids") or "").split(",")
        return cls(
            database=fields.get("database") or "",
            status=cast("Status", fields.get("status") or "active"),
            revoked_key_ids=frozenset(key_id for key_id in revoked if key_id),
            limits=AccountLimits.of_known(_json(fields.get("limits"))),
            plan=TrackingPlan.of_known(_json(fields.get("plan"))),
        )


def _json(text: str | None) -> Any:
    try:
        return json_codec.parse(text.encode()) if text else None
    except InvalidJsonError:
        return None


@dataclass(frozen=True, slots=True)
class AccountKeys:
    """Redis keys of the accounts of one stack, which is identified by the name of its ledger table."""

    stack: str

    def of(self, account: str) -> str:
        """Return the key of an account's hash."""
        return f"{self.stack}:account:{account}"

    @property
    def sentinel(self) -> str:
        """The key that exists once accounts have been applied."""
        return self.of(".applied")
