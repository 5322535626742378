"""Does what the `sluice` command cannot do from an operator's machine.

Redis may be in a private network that only the stack's functions can reach. This one reads and writes accounts, and checks Redis and
Treasure Data from there. If a request fails, the response has `error`, one word, and `message`, which says what is wrong and what to do.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import redis

from shared import json_codec, policy
from shared.accounts import Account, AccountKeys
from shared.clock import Clock
from shared.errors import PolicyContestedError, SecretUnavailableError, UnavailableError, aws_errors
from shared.policy import EdgePolicy, PolicyEntry
from shared.published_policy import PublishedPolicy
from shared.settings import WorkerSettings
from worker import account_store
from worker.deadline import Deadline
from worker.executor import Executors, run_parallel
from worker.health import PROBE_TABLE, DatabaseHealth
from worker.states import Presence
from worker.treasure_data.client import TreasureDataClient

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_PROBE_SECONDS = 10.0
_PROBES_AT_ONCE = 16
_NO_ROW = {"time": 0, "event_id": "sluice-probe", "received_at": 0}

_UNKNOWN = {"error": "unknown_request", "message": "This stack is older than the command. Deploy it again."}


@dataclass(eq=False)
class Admin:
    """Answers the requests of the `sluice` command."""

    _connect: Callable[[], Any]
    _keys: AccountKeys
    _treasure_data: TreasureDataClient
    _settings: WorkerSettings
    _clock: Clock
    _s3: "S3Client"
    _health: DatabaseHealth
    _executors: Executors

    def run(self, event: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        """Answer a request. The deadline is for queries to Treasure Data.

        The event's `do` is one of `accounts` (return them, why others are damaged, and a digest), `apply` (`accounts`: fields by name; the
        others are removed, damaged ones only with `removes_damaged`), `change` (`account`, `fields`), `publish` (the edge policy, from the
        accounts in Redis), `check` (return the state of Redis and Treasure Data), `columns` (return whether the `table` of an `account` shows
        the columns by which rows in doubt are queried; null if that is unknown), `missing` (return which of some `databases` do not exist;
        null if that is unknown). With `seen`, `apply` and `change` do nothing if others have changed what was seen: the digest, or the
        account's fields.
        """
        try:
            return self._answer(event, deadline)
        except (redis.RedisError, SecretUnavailableError) as error:
            was_asked = isinstance(error, redis.RedisError)
            message = f"Redis does not answer: {str(error).rstrip('.')}" if was_asked else str(error)
            return {"error": "redis_unreachable" if was_asked else "no_redis_url", "message": message}
        except aws_errors() as error:
            reason = str(error).rstrip(".")
            message = (
                f"Nothing was changed, because the edge policy cannot be written to S3: {reason}. Try again."
            )
            return {"error": "policy_not_published", "message": message}
        except UnavailableError as error:
            is_contested = isinstance(error, PolicyContestedError)
            return {
                "error": "policy_not_published" if is_contested else "accounts_incomplete",
                "message": str(error),
            }
        except ValueError as error:
            return {"error": "invalid_account", "message": str(error)}

    def _answer(self, event: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        match event:
            case {"do": "accounts"}:
                pass
            case {"do": "apply", "accounts": accounts}:
                given = {name: Account.from_fields(fields) for name, fields in accounts.items()}
                account_store.check(given)

                def wanted() -> dict[str, Account | str]:
                    kept = {} if event.get("removes_damaged") else self._read()
                    return {name: one for name, one in kept.items() if isinstance(one, str)} | given

                self._publish(wanted, event)
                account_store.apply(self._connect(), self._keys, wanted(), self._clock.now())
            case {"do": "change", "account": name, "fields": fields}:
                account = Account.from_fields(fields)
                account_store.check([name])
                self._publish(lambda: self._complete() | {name: account}, event)
                count = len({name, *self._complete()})
                account_store.change(self._connect(), self._keys, name, account, count)
            case {"do": "publish"}:
                self._publish(self._complete, event)
            case {"do": "check"}:
                return {
                    "redis": self._check_redis(deadline),
                    "treasure_data": self._check_td(deadline),
                    "assumed": {
                        "memory_minutes": self._settings.td_memory_minutes,
                        "query_delay_minutes": self._settings.td_query_delay_minutes,
                    },
                }
            case {"do": "missing", "databases": databases}:
                return {"missing": self._treasure_data.missing_databases(databases)}
            case {"do": "columns", "account": name, "table": table}:
                database = self._accounts()["accounts"].get(name, {}).get("database")
                return {"shown": database and self._treasure_data.shows_columns(database, table)}
            case _:
                return _UNKNOWN
        return self._accounts()

    def _read(self) -> dict[str, Account | str]:
        """Return the accounts in Redis, or why one is damaged."""
        return account_store.applied(self._connect(), self._keys)

    def _complete(self) -> dict[str, Account | str]:
        """Return all accounts, because the ingest would refuse one that the edge policy lacks; raise UnavailableError if Redis lacks some."""
        found = self._read()
        count = account_store.count(self._connect(), self._keys)
        if count is None or len(found) < count:
            raise UnavailableError("Redis has lost accounts. Run `sluice accounts apply accounts.yaml`.")
        return found

    def _publish(self, wanted: Callable[[], Mapping[str, Account | str]], event: Mapping[str, Any]) -> None:
        """Publish the edge policy, before Redis is changed: the ingest must never refuse an account that Redis has. It keeps damaged ones.

        Redis is read again whenever others have written the policy since it was read. They publish first, too, so nobody undoes the other. If
        they keep writing it, or Redis differs from what was seen according to the event, this raises PolicyContestedError.
        """
        now, seen = int(self._clock.now() * 1000), event.get("seen")

        def encoded(current: EdgePolicy | None) -> bytes:
            known = {} if seen is None else self._accounts()
            if known and seen not in (known["digest"], known["accounts"].get(event.get("account"))):
                raise PolicyContestedError("Others have changed the accounts meanwhile. Try again.")
            return policy.encode(
                {name: _entry(name, one, current) for name, one in wanted().items()}, now, current
            )

        PublishedPolicy(self._s3, self._settings.data_bucket).change(encoded)

    def _accounts(self) -> dict[str, Any]:
        found = self._read()
        fields = {name: one.to_fields() for name, one in found.items() if isinstance(one, Account)}
        damaged = {name: one for name, one in found.items() if isinstance(one, str)}
        at = account_store.applied_at(self._connect(), self._keys)
        digest = sha256(json_codec.dump([fields, damaged, at]).encode()).hexdigest()
        return {"accounts": fields, "damaged": damaged, "applied_at": at, "digest": digest}

    def _check_redis(self, deadline: Deadline) -> dict[str, Any]:
        before = self._clock.now()
        answer = self.run({"do": "accounts"}, deadline)
        seconds = round(self._clock.now() - before, 3)
        return answer if "error" in answer else answer | {"seconds": seconds}

    def _check_td(self, deadline: Deadline) -> dict[str, Any]:
        """Return what Treasure Data responds to our key, and what it may do there, as far as there is time to find out. This writes no rows."""
        td = self._treasure_data
        host, status, error = td.try_key()
        answers: dict[str, Any] = {"knows_key": status in (200, 403)}
        answers |= {"host": host, "status": status, "error": error}
        accounts = self.run({"do": "accounts"}, deadline).get("accounts", {}).values()
        databases = sorted({one["database"] for one in accounts if one["status"] == "active"})
        if not databases or not answers["knows_key"]:
            return answers
        [presence] = td.ask(databases[0], PROBE_TABLE, [[_NO_ROW]], deadline.within(_PROBE_SECONDS))
        missing = td.missing_databases(databases)
        jobs = [partial(self._probe, database, deadline) for database in databases]
        return answers | {
            "databases": dict(filter(None, run_parallel(self._executors, jobs, _PROBES_AT_ONCE))),
            "missing": missing,
            "may_query": None if presence is Presence.UNDECIDED else presence is not Presence.UNASKABLE,
        }

    def _probe(self, database: str, deadline: Deadline) -> tuple[str, str] | None:
        """Return a database, and why it would not take rows now, empty if it would; None if there is no time to find out."""
        if deadline.near:  # others have hung: what they have shown must still be told
            return None
        return database, self._health.probe(database, min(_PROBE_SECONDS, deadline.left()))


def _entry(name: str, account: Account | str, current: EdgePolicy | None) -> PolicyEntry:
    """Return an account's entry: if it is damaged, the one that is published; raise UnavailableError if there is none."""
    if isinstance(account, Account):
        return account.to_entry()
    if current is None or (entry := current.account(name)) is None:
        raise UnavailableError(
            f"The account {name} is damaged. Add it to accounts.yaml and run `sluice accounts apply accounts.yaml`."
        )
    return entry
