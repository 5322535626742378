"""Runs the `sluice` command on a running local stack."""

import json
import shlex
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from click.testing import CliRunner, Result
from redis import Redis

from local.accounts import ACCOUNTS, SIGNING_SECRETS
from local.stack import LocalStack
from local.up import DESCRIPTION
from ops.cli import main
from shared import policy, write_key
from shared.accounts import AccountKeys
from shared.clock import SystemClock
from worker.account_store import apply
from worker.shards import Shards

_PATIENCE_SECONDS = 120


class Sluice:
    """Runs the command, and acts on a running stack from outside. `home` gets the stack's description."""

    def __init__(self, stack: LocalStack, home: Path) -> None:
        self.stack = stack
        self.home = home
        stack.save(home / DESCRIPTION)

    def restore(self) -> None:
        """Restore the stack's initial accounts and secrets."""
        with Redis.from_url(self.stack.addresses.redis, decode_responses=True) as redis:
            apply(redis, AccountKeys(self.stack.resources.ledger_table), ACCOUNTS, 0)
        made = self.stack.resources
        entries = {name: account.to_entry() for name, account in ACCOUNTS.items()}
        document = policy.encode(entries, int(time.time() * 1000))
        made.client("s3").put_object(Bucket=made.data_bucket, Key=policy.KEY, Body=document)
        secrets = made.client("secretsmanager")
        held = json.loads(secrets.get_secret_value(SecretId=made.write_key_secret)["SecretString"])
        kept = {name: held[name] for name in (write_key.FORGET_KEY,) if name in held}
        members = json.dumps(SIGNING_SECRETS | kept)
        secrets.put_secret_value(SecretId=made.write_key_secret, SecretString=members)

    def run(self, line: str, answer: str = "") -> Result:
        """Run a command line, given without the word `sluice`, answering its prompt."""
        environment = {"SLUICE_HOME": str(self.home), "SLUICE_STACK": ""}
        terminal = CliRunner(mix_stderr=False, env=environment)
        return terminal.invoke(main, shlex.split(line), input=answer, prog_name="sluice")

    def json(self, line: str) -> Any:
        """Run a command line with --json and return what it prints."""
        result = self.run(f"{line} --json")
        assert result.exit_code in (0, 3), f"{result.output}{result.stderr}"
        return json.loads(result.stdout)

    def key(self, account: str) -> str:
        """Return a write key."""
        secrets = self.stack.resources.client("secretsmanager")
        held = secrets.get_secret_value(SecretId=self.stack.resources.write_key_secret)["SecretString"]
        return write_key.sign(account, "demo", json.loads(held)["demo"])

    def send(self, account: str, table: str, *event_ids: str) -> None:
        """Send events to the stack. All of them must be accepted."""
        self.post(account, [{"table": table, "event_id": event_id} for event_id in event_ids])

    def post(self, account: str, events: list[dict[str, Any]]) -> list[str]:
        """Send events with any columns. All of them must be accepted. Return their ids."""
        body, headers = json.dumps({"events": events}).encode(), {"x-write-key": self.key(account)}
        url = f"{self.stack.addresses.gateway}/v1/events?ids=1"
        with urlopen(Request(url, body, headers), timeout=60) as answer:
            found = json.load(answer)
        assert found["accepted"] == len(events)
        return list(found["event_ids"])

    def produce(self, account: str, table: str, *event_ids: str) -> None:
        """Put events on the stream directly, as another producer does, bypassing the edge policy."""
        events = [{"table": table, "event_id": event_id} for event_id in event_ids]
        data = json.dumps({"account": account, "events": events}).encode()
        made = self.stack.resources
        made.client("kinesis").put_record(StreamName=made.stream, Data=data, PartitionKey=account)

    def mark_shards(self) -> None:
        """Put a marker on each shard, as the sender does every five minutes."""
        made = self.stack.resources
        shards = Shards(made.client("kinesis"), made.stream, SystemClock())
        for shard in shards.all():
            shards.mark(shard)

    def td(self, path: str, document: Any = None) -> Any:
        """Request one of the Treasure Data double's own routes, with a POST if there is a document."""
        body = None if document is None else json.dumps(document).encode()
        with urlopen(Request(f"{self.stack.addresses.treasure_data}/-/{path}", body), timeout=60) as answer:
            return json.load(answer)

    def wait_for_dead(self, selected: str) -> None:
        """Wait until a command lists dead rows. The worker leaves rows of a database that failed a moment ago to the sender."""

        def are_listed() -> bool:
            self.run("redrive --local --yes")
            return bool(self.json(f"dead list --local {selected}"))

        until(are_listed)

    def heal(self) -> None:
        """End all of Treasure Data's faults."""
        url = f"{self.stack.addresses.treasure_data}/-/faults"
        urlopen(Request(url, method="DELETE"), timeout=60).close()

    def rows(self, database: str, table: str) -> list[str]:
        """Return the event ids of a table's rows, sorted."""
        return sorted(self.td("event_ids").get(database, {}).get(table, []))

    def settled(self) -> None:
        """Wait until everything that was accepted is planned and settled."""
        until(self._is_settled)

    def _is_settled(self) -> bool:
        balance = self.json("status --local --all")["balance"]
        return not balance["unread_records"] + sum(table["in_flight"] for table in balance["tables"])


def until(is_so: Callable[[], bool]) -> None:
    """Wait until a condition holds, for at most two minutes."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    beat = threading.Event()
    while not is_so():
        assert time.monotonic() < deadline, "the condition did not hold in time"
        beat.wait(0.05)
