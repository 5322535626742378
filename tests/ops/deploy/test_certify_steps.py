"""Certification steps: on a slow stage, what arrives late still counts; those that only AWS can carry out make valid calls, as botocore says."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from doubles.clock import ManualClock
from doubles.treasure_data import Action, Fault, Kind, Settings
from ops.deploy.certify import assumption_steps as assumptions
from ops.deploy.certify.certification_report import StepReport, StepVerdict
from ops.deploy.certify.stage import ON_AWS, TABLE
from ops.deploy.certify.step import Impossible, StepFinding, Untried
from ops.deploy.certify.steps import STEPS
from ops.deploy.certify.trouble import new_api_key, without_redis
from ops.deploy.removal import RETAINED, Removal, StackResource
from ops.deploy.td_client import TreasureDataQueries
from ops.failure import Failure
from shared.envelope import decode
from tests.support.modelled import DEPLOYED, Modelled
from tests.support.rehearsal import Rehearsal
from worker.drain import read
from worker.record import CLAIMED
from worker.redis_client import SIGN_IN_SECONDS

LETTERS = [{"id": "d1", "reason": "unknown_account"}]
KEPT = {"selected": 1, "delivered": 0, "kept": 1}
SENT = {"selected": 1, "delivered": 1, "kept": 0}
NONE = {"selected": 0, "delivered": 0, "kept": 0}
WELL = {"findings": [{"what": "Redis", "state": "ok", "said": "", "fault": ""}]}
SLOW = {"findings": [{"what": "Redis", "state": "fault", "said": "no answer", "fault": "redis_unreachable"}]}


def balance(*, in_flight: int = 0, adds_up: bool = True, **more: int) -> dict[str, Any]:
    """Return what `sluice status --since` says."""
    table = {"table": TABLE, "received": 1, "delivered": 1 - in_flight, "in_flight": in_flight}
    books = {"adds_up": adds_up, "tables": [table], "spans": 1}
    waiting = {"unread_records": 0, "queued_envelopes": 0}
    return {"balance": books | waiting | more}


def carry_out(step: str, stage: Rehearsal) -> StepFinding:
    """Carry out a step by its name."""
    (found,) = (one for one in STEPS if one.name == step)
    return found.on(stage)


@pytest.mark.parametrize(
    ("copies", "dead", "runs", "said"),
    [
        (1, [LETTERS], [KEPT, SENT], ""),  # the next run sends what a slow Redis or Treasure Data kept
        (1, [[], LETTERS], [KEPT, NONE], ""),  # the scheduled run was first
        (1, [LETTERS], [KEPT], r"did not deliver the row .*'kept': 1"),
        (2, [LETTERS], [SENT], "became 2"),
        (1, [[]], [], "did not become a dead row"),
    ],
)
def test_a_redrive_is_repeated_until_its_row_is_delivered_once(
    copies: int, dead: list[Any], runs: list[Any], said: str
) -> None:
    """It does not matter which run sends it; the message quotes the last one."""
    stage = Rehearsal(copies=copies, list=list(dead), redrive=list(runs))
    if said:
        with pytest.raises(Failure, match=said):
            carry_out("redrive", stage)
    else:
        assert carry_out("redrive", stage).said.startswith("A dead row was delivered")


def test_what_fails_once_is_tried_again() -> None:
    """A second failure of an administration call is one of the stage; a fault counts only if the doctor finds it twice."""
    slow = Failure("Redis does not answer")

    assert {"accounts": {}} == Rehearsal(administer=[slow, {"accounts": {}}]).administer(do="accounts")
    with pytest.raises(Failure, match="Redis does not answer"):
        Rehearsal(administer=[slow]).administer(do="accounts")
    assert {"Redis": "ok"} == carry_out("doctor", Rehearsal(doctor=[SLOW, WELL])).evidence
    with pytest.raises(Failure, match="Redis: no answer"):
        carry_out("doctor", Rehearsal(doctor=[SLOW]))


def test_books_and_a_replay_wait_until_every_row_is_settled() -> None:
    """A row may be in Treasure Data before the ledger says so. A replay would count one that is about to be settled as sent again."""
    stage = Rehearsal(status=[balance(in_flight=1), balance(unread_records=1), balance()])
    stage.send("one")
    rows = {"sent": 0, "passed_over": 1, "waiting": 0, "dead": 0}
    replay = {"complete": True, "records": 1, "rows": rows}
    replaying = Rehearsal(status=[balance(in_flight=1), balance()], replay=[replay])
    carry_out("replay", replaying)

    assert {"received": 1, "delivered": 1, "spans": 1} == carry_out("books", stage).evidence
    assert (2, 1) == (replaying.calls["status"], replaying.calls["replay"])


@pytest.mark.parametrize(
    ("copies", "said", "why"),
    [
        (1, balance(adds_up=False), "do not balance"),
        (1, balance(in_flight=1), "are still on the stream, in the queue or being delivered"),
        (1, balance(queued_envelopes=1), "are still on the stream, in the queue or being delivered"),
        (1, balance(), "1 of 2 events, such as certify-1-lost"),  # which S3 does not have
        (2, balance(), "certify-1-one: 2 of 1"),
    ],
)
def test_books_that_never_settle_fail(copies: int, said: dict[str, Any], why: str) -> None:
    """The message says whether the books do not balance or rows still wait, and names an event."""
    stage = Rehearsal(copies=copies, status=[said])
    stage.send("one")
    if copies == 1:
        stage.accept(TABLE, "certify-1-lost")
    with pytest.raises(Failure, match=why):
        carry_out("books", stage)


def test_an_envelope_is_queued_twice_and_a_forced_replay_repeated() -> None:
    """The messages are equal, and say that the stream refused them; the replay's second run under its tag must send nothing."""
    stage = Rehearsal(status=[balance()])
    carry_out("overflow", stage)
    done, nothing = ({"rows": {"sent": sent}} for sent in (1, 0))
    forced = carry_out("force", Rehearsal(copies=2, replay=[done, nothing]))
    _, first, second = stage.queued
    given = {name: {"stringValue": one["StringValue"]} for name, one in first["MessageAttributes"].items()}
    letter = {"messageId": "m", "receiptHandle": "r", "attributes": {"SentTimestamp": "0"}}
    message = read(letter | {"body": first["MessageBody"], "messageAttributes": given})

    found = decode(message.data)
    assert (first, "shop/0") == (second, message.partition_key)
    assert (CLAIMED, 1) == (found.claim, found.row_count)
    with pytest.raises(Failure, match="became 2 rows"):  # both copies count
        carry_out("overflow", Rehearsal(copies=2, status=[balance()]))
    assert forced.said.startswith("A forced replay sent 1")
    with pytest.raises(Failure, match="sent 1 and 1 rows, not 1 and 0"):
        carry_out("force", Rehearsal(copies=2, replay=[done]))


def test_a_wait_looks_once_more_after_its_deadline() -> None:
    """On a busy machine, one look may take longer than the whole wait."""
    clock, looks = ManualClock(), iter([0, 0, 1])

    def look() -> int:
        clock.sleep(60)
        return next(looks)

    assert 0 == ON_AWS.until(look, bool, clock, 30)
    assert 1 == next(looks)


def site(memory: float, delay: float, *faults: Fault, relied: float = 3600) -> Rehearsal:
    """Return a stage that relies on `relied` seconds, whose Treasure Data remembers ids for `memory` seconds and shows rows after `delay` seconds."""
    stage = Rehearsal()
    made = stage.kept
    made.memory = relied
    made.start()
    made.td.settings = Settings(id_memory=memory, query_delay=delay)
    for fault in faults:
        made.td.faults.add(fault)
    stack: Any = stage.stack
    stack.administer = lambda **event: made.wiring.admin.run(event, made.deadline())
    stage.queries = TreasureDataQueries(made.wiring.treasure_data, made.clock, "shop")
    return stage


def measured(stage: Rehearsal) -> StepFinding:
    """Carry out the steps that measure Treasure Data's limits, with a pause between them."""
    first = carry_out("visibility", stage)
    stage.reports["visibility"] = StepReport("visibility", StepVerdict.PASSED, "", first.evidence)
    stage.clock.sleep(600)
    return carry_out("memory", stage)


def test_treasure_data_s_limits_are_those_that_the_worker_relies_on() -> None:
    """A query that fails settles nothing. It is no failure if the key may not query, or if the first of the steps did not run."""
    stage = site(3700, 90, Fault(kind=Kind.STATUS, action=Action.QUERY, status=500, count=3))
    found = measured(stage)

    assert found.said.startswith("Treasure Data remembers an id for 1 h")
    assert 90 <= float(stage.timings["visible latency of an import"].split()[0]) <= 110
    assert {"shop": {"sluice_measure": 2}} == stage.kept.td.counts()
    with pytest.raises(Impossible, match="may not query"):
        measured(site(3700, 0, Fault(kind=Kind.STATUS, action=Action.QUERY, status=403)))
    with pytest.raises(Untried, match="`visibility`"):
        carry_out("memory", site(3700, 0))


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        (site(3500, 0), "has forgotten an id after 1 h: lower TdMemoryMinutes, or rows may be duplicated"),
        (site(5000, 0, relied=5400), "lower TdMemoryMinutes while no rows wait, or"),
        (site(3700, 1200), "the worker waits 10 min: raise TdQueryDelayMinutes"),
        (site(3700, 1e6), "did not see a new row after .*: raise TdQueryDelayMinutes"),
        (site(1, 0, Fault(kind=Kind.STATUS, action=Action.IMPORT)), r"not accept a test row \(http_503\)"),
    ],
    ids=["forgets early", "forgets before a raised limit", "shows late", "never shows", "refuses"],
)
def test_a_limit_that_does_not_hold_is_named(stage: Rehearsal, said: str) -> None:
    """With the parameter to change."""
    with pytest.raises(Failure, match=said):
        measured(stage)


def test_the_first_contact_with_redis_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report compares it with a command on the open connection, and names what the functions allow."""
    checks = [{"redis": {"accounts": {}, "seconds": seconds}} for seconds in (1.94, 0.01)]
    stage = Rehearsal(administer=checks)
    monkeypatch.setattr(stage, "restart", lambda _function: None)
    found = carry_out("resp", stage)

    assert "after 1.94 s (the functions allow 3 s)" in found.said
    assert 3 == SIGN_IN_SECONDS
    assert {"accounts": 0, "seconds": 1.94, "seconds on an open connection": 0.01} == found.evidence
    assert "1.94 s" == stage.timings["Redis, first contact"]


def carried_out(step: Callable[[Any], Any], answers: Mapping[str, Any]) -> Any:
    """Carry out a step on AWS."""
    return step(Rehearsal(client=Modelled(answers)))


LOGGED = {"GetFunctionConfiguration": {"LoggingConfig": {"LogGroup": "sluice-dev-Logs"}}}


def test_steps_that_need_aws_are_not_tried_in_an_emulator() -> None:
    """Each says what the emulator does not do."""
    stage = Rehearsal()
    stage.is_emulated = True
    only_aws = [one for one in STEPS if one.lacks]

    assert ["idle", "metrics"] == [one.name for one in only_aws]
    for one in only_aws:
        with pytest.raises(Untried, match=f"the emulator {one.lacks}"):
            one.on(stage)


@pytest.mark.parametrize(
    ("breaking", "network", "parameter"),
    [
        (new_api_key, "managed", "TdApiKeySecretArn"),
        (without_redis, "managed", "RedisUrlSecretArn"),
        (without_redis, "external", "RedisUrlSecretArn"),
    ],
)
def test_whatever_delivers_forgets_what_is_broken(breaking: Any, network: str, parameter: str) -> None:
    """A sender that kept the key or the accounts would deliver the row. A secret outside the stack makes the step impossible."""
    answers = {
        "GetSecretValue": {"SecretString": "1/old", "VersionId": "v" * 32},
        "DescribeUserGroups": {"UserGroups": [{"Status": "active"}]},
        "GetFunctionConfiguration": {"Environment": {"Variables": {}}},
        "GetFunction": {"Configuration": {"LastUpdateStatus": "Successful"}},
    }
    changes = ("PutSecretValue", "ModifyUserGroup", "UpdateFunctionConfiguration")
    client = Modelled(answers | {name: {} for name in changes})
    stage = Rehearsal(client=client)
    parameters: Any = stage.stack.parameters
    parameters["Network"] = network
    with breaking(stage):
        changed = [asked.get("FunctionName", "broken") for name, asked in client.asked if name in changes]

    assert ["broken", "WorkerFunction", "SenderFunction"] == changed[:3]
    parameters[parameter] = "arn:aws:secretsmanager:…:secret:shared"
    with pytest.raises(Impossible, match="in a secret outside the stack"), breaking(stage):
        raise AssertionError


def counted(*sums: float) -> dict[str, Any]:
    """Return the answers about metrics, in order."""
    answers = [{"Datapoints": [{"Sum": one}] if one else []} for one in sums]
    return {**DEPLOYED, **LOGGED, "GetMetricStatistics": answers, "FilterLogEvents": {"events": []}}


def test_metrics_must_arrive_at_each_log_level_and_no_error_after_idle_minutes() -> None:
    """Alarms on a level without metrics would stay green; a connection closed while idle costs an event its first attempt."""
    found = carried_out(assumptions.metrics, counted(0, 1, 0, 2))

    assert {"INFO": 1.0, "WARN": 2.0} == found.evidence["EventsRejected"]
    with pytest.raises(Failure, match="LogLevel=WARN"):
        carried_out(assumptions.metrics, counted(1, 0))
    said = {"FilterLogEvents": {"events": [{"message": "connection reset"}]}}
    with pytest.raises(Failure, match="connection reset"):
        carried_out(assumptions.idle, LOGGED | said)
    carried_out(assumptions.idle, {**LOGGED, "FilterLogEvents": {"events": []}})


@pytest.mark.parametrize("kind", RETAINED)
def test_the_checks_of_a_removal_make_valid_calls(kind: str) -> None:
    """A resource that is not found counts as gone."""
    stack: Any = SimpleNamespace(client=Modelled({}))
    gone = StackResource("Gone", "0f5e1c4a-0000-4000-8000-000000000000", kind, is_retained=True)

    assert Removal(stack, ManualClock(), 1.0)._is_there(gone) is False
