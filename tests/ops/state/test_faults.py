"""Forty faults of a stack, alone and in pairs: `status` and `doctor` name the same ones, each with one step to take, and invent none."""

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pytest
import requests
from redis.exceptions import ConnectionError as RedisConnectionError

from doubles.treasure_data.fault import Action, Fault, Kind
from ops.state.faults import findings, summary
from ops.state.stack_state import StackState, WaitingRows
from shared.accounts import Account
from shared.clock import SystemClock
from shared.errors import SecretUnavailableError
from tests.support.delivery import KEYS, TABLE, TD_KEY_SECRET, envelope, lose_answer, row
from tests.support.faulty_stack import FaultyStack, gone

Seed = Callable[[FaultyStack], object]
PAIRS, SEED = 150, 27  # how many of some 1,000 pairs, and which


@dataclass(frozen=True)
class Case:
    """One fault: its name, what breaks a stack this way (in the `order` of numbers, after everything `before`), and what the advice contains.

    Two faults of one `part` cannot be told apart. It `hides` parts that nobody can look at then, and faults that follow from it. If it `blinds`,
    nobody can read what waits; then a fault is named `blind`, unless that is None.
    """

    name: str
    seed: Seed
    step: str
    part: str
    hides: tuple[str, ...] = ()
    order: int = 0
    before: Seed = lambda _: None
    blind: str | None = None
    blinds: bool = False


def take(stack: FaultyStack, account: str, *, ago: float = 0.0, data: bytes | None = None) -> None:
    """Have the worker take a record; `ago` is how many seconds before the state is read."""
    made = stack.made
    if ago:
        made.clock.time = SystemClock().now() - ago
    now = int(made.clock.now())
    rows = {"views": [row(f"{account}-{now}", now)]}
    made.put(envelope(account, rows, request_id=account, received_at=now * 1000) if data is None else data)
    made.deliver(-1)


def database(account: str, *, takes: bool = True, **fault: Any) -> Seed:
    """Return a seed with an account whose database fails on; unless it `takes` none, a row of it has come."""

    def seed(stack: FaultyStack) -> None:
        made = stack.made
        made.map(**{account: f"{account}_db"})
        made.td.create(f"{account}_db", *(["views"] if takes else []))
        made.td.faults.add(Fault(action=Action.IMPORT, database=f"{account}_db", **fault))
        if takes:
            take(stack, account)

    return seed


def disabled(stack: FaultyStack) -> None:
    """An account is disabled while its rows are under way."""
    stack.made.redis.hset(KEYS.of("off"), mapping=Account("off_db", status="disabled").to_fields())
    take(stack, "off")


def refused_key(stack: FaultyStack) -> None:
    """The API key is revoked while a row is under way."""
    stack.made.map(late="late_db")
    stack.made.secrets.values[TD_KEY_SECRET] = "revoked"
    stack.made.start()
    take(stack, "late")


def unanswered_account(stack: FaultyStack) -> None:
    """Redis loses its data while a row of an account that the worker does not remember is under way."""
    stack.made.redis.flushall()
    stack.made.start()
    take(stack, "forgotten")


def held(service: str, call: str, fail: Callable[[], object] = lose_answer) -> Seed:
    """Return a seed in which the worker holds records, because a call fails."""

    def seed(stack: FaultyStack) -> None:
        client = getattr(stack.made, service)
        client.before[call] = lambda _: fail()
        take(stack, "shop", ago=30)
        del client.before[call]

    return seed


def no_time(stack: FaultyStack) -> None:
    """The invocation has no time left."""
    unread(30)(stack)
    stack.made.deliver(-1, remaining_ms=1)


def unread(seconds: float) -> Seed:
    """Return a seed with a record that nobody takes."""

    def seed(stack: FaultyStack) -> None:
        stack.made.clock.time = SystemClock().now() - seconds
        stack.made.put(envelope("shop", {"views": [row("a")]}))

    return seed


def busy(stack: FaultyStack) -> None:
    """The worker has just taken a record that is two minutes old. The next one is nearly as old."""
    unread(120)(stack)
    stack.made.clock.time = SystemClock().now() - 30
    stack.made.deliver(-1)
    unread(100)(stack)


def of_client(service: str, hook: Callable[[Any], Any], *calls: str) -> Seed:
    """Return a seed that has calls of a service fail for the commands."""
    return lambda stack: stack.client(service).before.update(dict.fromkeys(calls, hook))


def answered(service: str, call: str, member: str, **changes: str) -> Seed:
    """Return a seed that changes a member of a service's answer."""

    def seed(stack: FaultyStack) -> None:
        client = stack.client(service)
        inner = getattr(client.client, call)

        def changed(**request: Any) -> Any:
            answer = inner(**request)
            answer[member].update(changes)
            return answer

        setattr(client.client, call, changed)

    return seed


def restored(stack: FaultyStack) -> None:
    """The ledger is restored from a backup."""
    made = stack.made
    items = list(made.dynamodb.items(TABLE))
    made.clock.sleep(1)
    made.dynamodb.restore(TABLE, items)


def of(**values: Any) -> Seed:
    """Return a seed that sets attributes of the stack."""
    return lambda stack: stack.break_(**values)


def api(answer: int | Exception, *paths: str) -> Seed:
    """Return a seed with another answer of the API."""
    return lambda stack: stack.api.answers.update(dict.fromkeys(paths, answer))


def mapping(**members: Any) -> Seed:
    """Return a seed that changes the worker's event source mapping."""
    return lambda stack: stack.mapping.update(members)


def secret(name: str, text: str) -> Seed:
    """Return a seed that stores a secret."""
    return lambda stack: stack.made.secrets.values.update({name: text})


AWAY = requests.ConnectionError("away")
LOG, RESUMES = "`sam logs --stack-name sluice-dev --region us-east-1 --name", "No action needed"
REDIS = ("quiet", "key")
NO_QUEUE = "AWS.SimpleQueueService.NonExistentQueue"
STREAM_CALLS = ("describe_stream_summary", "list_shards")
LEDGER_CALLS = ("describe_table", "query", "get_item", "scan")


# One fault a line.
# fmt: off
CASES = (
    # the API and its keys
    Case("api_away", api(AWAY, "/health", "/v1/events"), "`curl -i http://api.invalid/health`", "api", ("key", "clock"), 8),
    Case("api_failing", api(503, "/health"), f"{LOG} IngestFunction`", "api"),
    Case("api_failing", api(502, "/v1/events"), f"{LOG} IngestFunction`", "key"),
    Case("clock", lambda stack: setattr(stack.api, "late", 90.0), "Set it, or AWS rejects", "clock"),
    Case("write_key_refused", api(401, "/v1/events"), "`sluice keys verify KEY", "key"),
    Case("write_key_failing", secret("keys", "{}"), "`aws secretsmanager put-secret-value`", "secret", ("key",)),
    # the stream and the worker
    Case("stream_gone", of_client("kinesis", gone(), *STREAM_CALLS), "`sam deploy`", "stream", hides=("worker",), order=9, blinds=True),
    Case("stream_inactive", answered("kinesis", "describe_stream_summary", "StreamDescriptionSummary", StreamStatus="DELETING"), "`aws kinesis describe-stream-summary", "stream"),
    Case("worker_off", unread(300), f"{LOG} WorkerFunction`", "worker", order=6, blind=""),
    Case("worker_off", unread(7200), f"{LOG} WorkerFunction`", "worker", order=8),
    Case("catching_up", busy, RESUMES, "worker", order=6, blind=""),
    Case("worker_silent", unread(100), f"{LOG} WorkerFunction`", "worker", order=6, blind="", before=lambda stack: take(stack, "shop", ago=120)),
    Case("ledger_failing", held("dynamodb", "put_item"), RESUMES, "worker", order=6, blind=""),
    Case("bucket_failing", held("s3", "put_object"), RESUMES, "worker", order=6, blind=""),
    Case("stream_failing", held("kinesis", "list_shards"), RESUMES, "worker", order=6, blind=""),
    Case("no_time", no_time, RESUMES, "worker", order=6, blind=""),
    Case("worker_bug", held("s3", "put_object", lambda: 1 // 0), "`sluice status --stack", "worker", order=6, blind=""),
    Case("mapping", mapping(State="Disabled"), "`aws lambda update-event-source-mapping --uuid 0f5e1c4a", "mapping", ("worker_off", "worker_silent")),
    Case("mapping", mapping(MaximumRetryAttempts=3), "`sam deploy`", "mapping", ("worker_off", "worker_silent")),
    Case("mapping", lambda stack: stack.mapping.clear(), "`sam deploy`", "mapping", ("worker_off", "worker_silent")),
    Case("schedule_off:SenderFunctionSchedule", of(off={"SenderFunctionSchedule"}), "`aws events enable-rule --name sluice-dev-SenderFunctionSchedule-1ABC", "rule"),
    # accounts
    Case("redis_unreachable", of(redis_failure=RedisConnectionError("refused")), "docs/deploying.md#network", "redis", REDIS),
    Case("no_redis_url", of(redis_failure=SecretUnavailableError("no URL")), "`aws secretsmanager put-secret-value", "redis", REDIS),
    Case("redis_empty", lambda stack: stack.made.redis.flushall(), "`sluice accounts apply accounts.yaml --stack", "redis", REDIS, 7),
    Case("invalid_account", lambda stack: stack.made.redis.hset(KEYS.of("odd"), mapping={"database": "!"}), "`sluice accounts apply", "redis", order=7),
    Case("redis_empty:forgotten", unanswered_account, "`sluice accounts apply accounts.yaml --stack", "redis", REDIS, 4, blind="redis_empty"),
    # Treasure Data and its databases
    Case("td_no_key", secret(TD_KEY_SECRET, ""), "`sluice setup --stack sluice-dev --region us-east-1`", "td", ("quiet",), 4),
    Case("td_key_refused", secret(TD_KEY_SECRET, "revoked"), "--td-key-file FILE`", "td", ("quiet",), 4),
    Case("td_key_refused:late_db", refused_key, "--td-key-file FILE`", "td", ("quiet",), 3, blind="td_key_refused"),
    Case("td_failing", lambda stack: stack.made.td.faults.add(Fault(kind=Kind.STATUS, status=503)), RESUMES, "td", ("quiet",), 4),
    Case("td_failing:app_db", database("app", kind=Kind.STATUS, status=503), RESUMES, "app"),
    Case("td_failing:app_db", database("app", kind=Kind.HANG), RESUMES, "app"),
    Case("td_failing:app_db", database("app", kind=Kind.REFUSE), "check TdImportEndpoint", "app"),
    Case("td_failing:app_db", database("app", kind=Kind.NOT_JSON), "check TdImportEndpoint", "app"),
    Case("td_forbidden:app_db", database("app", kind=Kind.STATUS, status=403), "accounts.yaml", "app"),
    Case("td_failing:quiet_db", database("quiet", takes=False, kind=Kind.STATUS, status=503), RESUMES, "quiet"),
    Case("td_forbidden:quiet_db", database("quiet", takes=False, kind=Kind.STATUS, status=403), "accounts.yaml", "quiet"),
    # dead rows
    Case("dead:unknown_account", lambda stack: take(stack, "nobody"), "--kind dead --reason unknown_account`", "nobody", blind=""),
    Case("dead:http_422", database("bad", kind=Kind.STATUS, table="views", status=422), "--edit --reason http_422`", "bad", blind=""),
    Case("dead:disabled_account", disabled, "`sluice accounts enable ACCOUNT --stack", "off", blind=""),
    Case("dead:undecodable", lambda stack: take(stack, "", data=b"?"), "`sluice dead list", "junk", blind=""),
    # where everything is kept
    Case("ledger_gone", of_client("dynamodb", gone(), *LEDGER_CALLS), "`sam deploy`", "ledger", hides=("worker",), order=9, blinds=True),
    Case("ledger_inactive", answered("dynamodb", "describe_table", "Table", TableStatus="CREATING"), "`aws dynamodb describe-table", "ledger", order=9),
    Case("ledger_restored", restored, "--repair-ledger`", "ledger", ("worker",), 5, before=lambda stack: take(stack, "shop")),
    Case("bucket_gone", of_client("s3", gone("404"), "head_bucket"), "`sam deploy`", "bucket"),
    Case("queue_gone", of_client("sqs", gone(NO_QUEUE), "get_queue_attributes"), "`sam deploy`", "queue", blinds=True),
    Case("alarm:overflow-volume", lambda stack: stack.alarms.append("overflow-volume"), "docs/operations.md#alarms", "alarm"),
)
# fmt: on


def read(*cases: Case) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return what `status` and `doctor` find wrong with a stack that has these faults."""
    stack = FaultyStack()
    stack.made.map(shop="shop_db")
    stack.made.td.create("shop_db")
    for case in cases:
        case.before(stack)
    for case in sorted(cases, key=lambda case: case.order):
        case.seed(stack)
    stack.made.clock.time = max(stack.made.clock.time, SystemClock().now())
    found = []
    for line in ("status --json", "doctor --no-event --json"):
        result = stack.run(line)
        assert result.exit_code in (0, 3), (result.output, result.stderr, result.exception)
        findings = json.loads(result.stdout)["findings"]
        wrong = [one for one in findings if one["health"] != "healthy"]
        assert (3 if wrong else 0) == result.exit_code
        found.append(wrong)
    return found[0], found[1]


def names(found: list[dict[str, Any]]) -> set[str]:
    """Return the names of findings, each with what it is about."""
    return {":".join(filter(None, (one["fault"], one["about"]))) for one in found}


def test_without_redis_nobody_knows_which_accounts_are_active() -> None:
    """That there is none would be a second fault to look for."""
    stack = FaultyStack()
    stack.break_(redis_failure=RedisConnectionError("refused"))
    said = {one["what"]: one["said"] for one in stack.json("doctor")["findings"]}

    assert "not checked: it is unknown which accounts there are" == said["write key"]


def over(stack: FaultyStack) -> None:
    """The worker has taken the record since it held it, although its log still tells of that."""
    take(stack, "shop", ago=60)
    held("dynamodb", "put_item")(stack)
    stack.made.deliver(-1)


def revoked(stack: FaultyStack) -> None:
    """An account has revoked the first keys of the newest secret, which neither command tries then."""
    stack.made.redis.hset(KEYS.of("shop"), mapping={"revoked_key_ids": "k1,k1-2"})
    stack.api.revoked |= {"k1", "k1-2"}


def filling(stack: FaultyStack) -> None:
    """A record waits for its batch to fill, as the parameter allows."""
    stack.break_(parameters={"BatchWindowSeconds": "240"})
    unread(200)(stack)


@pytest.mark.parametrize("seed", [lambda _: None, over, revoked, filling])
def test_a_sound_stack_has_no_faults(seed: Seed) -> None:
    """Neither command invents one."""
    assert ([], []) == read(Case("", seed, "", ""))


@pytest.mark.parametrize(
    ("reason", "minutes", "health"),
    [
        ("sending", 1, "healthy"),
        ("sending", 4, "waiting"),
        ("put_again", 15, "healthy"),
        ("put_again", 35, "waiting"),
        ("http_503", 1, "waiting"),
        ("http_429", 1, "waiting"),
        ("http_422", 1, "attention"),
    ],
)
def test_what_is_usual_for_a_while_is_no_fault(reason: str, minutes: int, health: str) -> None:
    """Whether a row that was put again is a copy is certain after some ten minutes, and nobody has to act until then."""
    now = 1_700_000_000.0
    rows = WaitingRows("shop", "shop_db", reason, rows=2, since=now - 60 * minutes)
    state = StackState(waiting=[rows], at=now)
    [first] = summary(state, findings(state, "--local"))

    assert health == first.health
    assert "2 rows" in first.verdict


def test_a_line_of_status_says_what_it_is_about() -> None:
    """Unlike one of `doctor`, it does not begin with that."""
    stack = FaultyStack()
    stack.made.map(shop="shop_db", blog="blog_db")
    assert "Note: Treasure Data has no databases blog_db, shop_db yet." in stack.run("status").stdout
    stack.made.redis.flushall()
    assert "ATTENTION: Redis is empty" in stack.run("status").stdout


def test_a_new_secret_is_no_advice_for_an_account_that_the_ingest_refuses() -> None:
    """It reads every minute which accounts are enabled."""

    def enabled_just_now(stack: FaultyStack) -> None:
        stack.api.code = "disabled_account"
        api(403, "/v1/events")(stack)

    [one], _ = read(Case("", enabled_just_now, "", ""))

    assert "takes effect within a minute. `sluice accounts show shop --stack sluice-dev" in one["line"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_fault_is_named_with_one_step(case: Case) -> None:
    """Both commands name it, and nothing else; the step is a command, or that there is nothing to do."""
    by_status, by_doctor = read(case)

    assert {case.name} == names(by_status) == names(by_doctor)
    (one,) = by_status
    assert case.step in one["line"]
    assert all("--stack sluice-dev" in command for command in re.findall("`sluice [^`]+`", one["line"]))
    assert case.name.partition(":")[2] in one["line"]  # which database, account or reason it is about
    assert (one["health"] == "attention") is (RESUMES not in one["line"])


def test_the_doctor_repairs_a_restored_ledger_after_asking() -> None:
    """Without an answer nothing changes, nor with an object that cannot be read; afterwards nothing is wrong or left to repair."""
    stack = FaultyStack()
    stack.made.map(shop="shop_db")
    take(stack, "shop", ago=60)
    stack.made.clock.time = SystemClock().now()
    stack.made.dynamodb.restore(TABLE, [])
    line = "doctor --no-event --repair-ledger"
    [name] = stack.made.span_objects()
    refused = stack.run(line, "n")
    of_client("s3", gone("AccessDenied"), "get_object")(stack)
    unreadable = stack.run(f"{line} --yes")
    del stack.made.s3.before["get_object"]
    done, again = stack.run(f"{line} --yes"), stack.run(f"{line} --yes")

    assert f"read: {name}: An error occurred (AccessDenied)" in unreadable.stdout
    assert "docs/operations.md#restore" in unreadable.stdout
    assert (1, 3, 0, 0) == (refused.exit_code, unreadable.exit_code, done.exit_code, again.exit_code)
    assert "The bucket has 1 object that the ledger does not know." in refused.stderr
    assert "1 span taken up, 0 objects left aside; Treasure Data is asked for 1 row" in done.stdout
    assert "nothing to repair" in again.stdout


# of two faults of one part only one can be there
TOGETHER = [(one, other) for one, other in combinations(CASES, 2) if one.part != other.part]


@pytest.mark.parametrize("pair", random.Random(SEED).sample(TOGETHER, PAIRS))
def test_two_faults_are_both_named(pair: tuple[Case, Case]) -> None:
    """Unless one hides the other."""
    first, second = pair

    def is_hidden(one: Case, other: Case) -> bool:
        return one.part in other.hides or one.name in other.hides

    expected = set()
    for one, other in ((first, second), (second, first)):
        is_told = other.name.startswith(f"{one.name}:") and not is_hidden(other, one)
        name = one.blind if other.blinds and one.blind is not None else one.name
        expected |= set() if is_told or is_hidden(one, other) else {name} - {""}
    by_status, by_doctor = read(first, second)

    assert expected == names(by_status) == names(by_doctor)
