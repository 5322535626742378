"""The rights listed for each command match its calls to AWS."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from doubles.treasure_data import API_KEY
from local.accounts import KEYS, SIGNING_SECRETS
from shared.clock import SystemClock
from shared.telemetry import NullTelemetry
from tests.support.command_rights import OPTIONAL, OWNERS, RIGHTS, ROLES, UNASKED, policy
from tests.support.commands import all_commands
from tests.support.deployed import Deployed, deployed
from tests.support.sam import template
from tests.support.sluice import Sluice, until
from tests.support.spans import span as a_span
from worker.bucket import Bucket
from worker.chain import ChainId
from worker.forget.requests import KEY as REQUESTS
from worker.index import EMPTY
from worker.ledger import Ledger
from worker.span import ChunkKey, Destination, Group, RowSender, milliseconds
from worker.span_object import Chunk, SpanObjects, encode, name_of
from worker.states import Entry, State

LINES = {
    "accounts apply": ["accounts apply {file} --yes"],
    "accounts disable": ["accounts disable app --yes", "accounts enable app"],
    "accounts enable": ["accounts enable app"],
    "accounts list": ["accounts list"],
    "accounts show": ["accounts show app"],
    "accounts export": ["accounts export"],
    "cost": ["cost --events 10M"],
    "console": ["console --for 0s"],
    "dead drop": ["dead drop --account nobody_yet --yes"],
    "dead list": ["dead list"],
    "dead show": ["dead show {dead}"],
    "doctor": ["doctor --account app"],
    "export": ["export email=a --account nobody_yet"],
    "forget": ["forget email=a --account nobody_yet --yes"],
    "find": ["find a", "find no-such-event --since 30d"],
    "keys issue": ["keys issue app"],
    "keys revoke": ["keys revoke app next-9 --yes"],
    "keys rotate": ["keys rotate"],
    "keys verify": ["keys verify {key}"],
    "plan diff": ["plan diff news"],
    "plan infer": ["plan infer nobody_yet"],
    "record": ["record -o {out}"],
    "redrive": ["redrive --kind dead", "redrive --edit", "redrive --kind rejected --edit"],
    "replay": ["replay", "replay --force --from 2026-01-01 --to {now} --account nobody_yet --yes"],
    "sdk publish": ["sdk publish --folder {sdk}"],
    "setup": ["setup --accounts {file} --td-key-file {td_key} --account app --yes --timeout 0s"],
    "tail": ["tail --for 1s"],
    "status": ["status", "status --all", "status --complete"],
    "wait": ["wait --account app --table rights --until 3h --timeout 1s"],
}
"""The command lines that make each command use all of its rights."""


@pytest.fixture
def stack(sluice: Sluice) -> Iterator[Deployed]:
    """The local stack, presented as a deployed one, with a dead row and a waiting one."""
    sluice.stack.resources.client("s3").create_bucket(Bucket="rights")
    topic = sluice.stack.resources.client("sns").create_topic(Name="rights")["TopicArn"]
    if not _has_dead_letter(sluice):
        sluice.produce("nobody_yet", "rights", "a")
        until(lambda: _has_dead_letter(sluice))
    with (
        waiting(sluice),
        deployed(sluice.stack, SdkBucket="rights", SdkUrl="http://127.0.0.1:9", AlarmTopic=topic) as shown,
    ):
        yield shown


@contextmanager
def waiting(sluice: Sluice) -> Iterator[None]:
    """Give the ledger a waiting row and a rejected event without a copy, for a while."""
    made, sender = sluice.stack.resources, RowSender("nobody_yet")
    dynamodb = made.client("dynamodb")
    ledger = Ledger(dynamodb, made.ledger_table, SystemClock(), os.urandom, NullTelemetry())
    row = ChunkKey(Group(sender, "rights"), 0)
    rejected = ChunkKey(Group(sender, "rights", "missing_column", is_rejected=True), 0)
    encoded = encode([Chunk(row, [b"\x80"], [1])], EMPTY, time.time())
    span = a_span(
        chain=ChainId.overflow("rights"),
        planned_at=milliseconds(time.time()),
        chunks={row: 1, rejected: 1},
        destinations={sender: Destination("nowhere")},
        received_at=milliseconds(time.time()),
        object=encoded.ref,
        entries={row: Entry(State.WAITING, reason="test")},
        settled=True,
    )
    bucket = Bucket(made.client("s3"), made.data_bucket)
    SpanObjects(bucket).put(span, encoded.data)
    ledger.append(span)
    try:
        yield
    finally:
        key = {"pk": {"S": span.chain.name}, "sk": {"S": span.after}}
        dynamodb.delete_item(TableName=made.ledger_table, Key=key)
        bucket.delete(name_of(span))


EXPECTED = ("has no records in this range", "not found since", "no copies of these", "no query sees its row")
"""What a command says that failed only after it had used all of its rights."""


def _has_dead_letter(sluice: Sluice) -> bool:
    return any(one["account"] == "nobody_yet" for one in sluice.json("status --local")["rows"])


@pytest.mark.xdist_group("rights")
@pytest.mark.parametrize("command", RIGHTS)
def test_a_command_uses_exactly_its_listed_rights(
    stack: Deployed, sluice: Sluice, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unlisted right would be missing from the policies, and an unused one would be granted for nothing."""
    exported = sluice.run("accounts export --local").stdout
    (tmp_path / "accounts.yaml").write_text(f"{exported}\nextra: {{database: extra}}\n")
    (tmp_path / "manifest.json").write_text(json.dumps({"version": "0.1.0", "files": {}}))
    for name in ("sluice.d.ts", "snippet.html"):
        (tmp_path / name).write_text("")
    (tmp_path / "td_key").write_text(f"{API_KEY}\n")
    dead = next(one["id"] for one in sluice.json("dead list --local") if one["account"] == "nobody_yet")
    places = {
        "dead": dead,
        "file": tmp_path / "accounts.yaml",
        "key": KEYS["app"],
        "now": datetime.now(UTC).isoformat(),
        "out": tmp_path / "o",
        "sdk": tmp_path,
        "td_key": tmp_path / "td_key",
    }
    monkeypatch.setenv("VISUAL", "")
    monkeypatch.setenv("EDITOR", "true")
    made = sluice.stack.resources
    store = made.client("secretsmanager").put_secret_value
    if command == "setup":  # so that it stores the right one
        store(SecretId=made.td_api_key_secret, SecretString="an old key")
    # so that the key by which persons are recognised is made
    made.client("s3").delete_object(Bucket=made.data_bucket, Key=REQUESTS)
    store(SecretId=made.write_key_secret, SecretString=json.dumps(SIGNING_SECRETS))
    stack.calls.clear()
    # a day later, the windows of the stream's own count are closed
    stack.age = 86_400 * (command == "status")
    results = [stack.run(line.format(**places).split()) for line in LINES[command]]
    sluice.restore()

    said = [result.stderr for result in results if result.exit_code not in (0, 3, 4)]
    assert [] == [one for one in said if not any(part in one for part in EXPECTED)]
    unasked = set(UNASKED.get(command, ()))
    listed = {*RIGHTS[command], *OPTIONAL.get(command, ())}
    assert sorted(listed - unasked) == sorted(set(stack.calls) - unasked)


def test_every_command_with_a_stack_option_is_listed() -> None:
    """Each has its rights and the command lines that exercise them. `mcp` runs other commands."""
    on_stacks = {path for path, found in all_commands() if any("--stack" in one.opts for one in found.params)}

    assert sorted(on_stacks - OWNERS - {"mcp"}) == sorted(RIGHTS) == sorted(LINES)
    assert {command for commands in ROLES.values() for command in commands} <= set(RIGHTS)


def test_a_policy_allows_its_commands_and_nothing_else() -> None:
    """The role `watch` cannot write, invoke functions or read secrets. The administrator finds each value to fill in among the outputs."""
    for commands in ROLES.values():
        allowed = {action for one in policy(commands)["Statement"] for action in one["Action"]}
        assert allowed == {right.partition(" ")[0] for command in commands for right in RIGHTS[command]}
    watching = json.dumps(policy(ROLES["watch"]))

    assert not any(word in watching for word in ("Put", "Delete", "Update", "Invoke", "Secret"))
    named = {part.partition(">")[0] for part in json.dumps(policy(RIGHTS)).split("<")[1:]}
    assert named <= set(template()["Outputs"])
