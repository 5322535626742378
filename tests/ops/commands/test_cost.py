"""`sluice cost`: what a stack costs in a month."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from doubles.clock import ManualClock
from doubles.lambda_context import Context
from ingest.policy import FRESH_SECONDS
from ops.cli import main
from ops.cost import estimate as figures
from ops.cost import prices
from ops.cost.estimate import Setup, Workload, batches, estimate, shard_count, total
from ops.cost.monthly import cost_line, monthly_cost
from ops.cost.prices import REGIONS, US_EAST_1, unconfirmed
from ops.cost.worst import CACHE_GB, CACHE_UNITS, worst
from ops.template import sluice_template
from scaler.rule import GROW_ABOVE
from tests.support.delivery import TABLE, Delivery, envelope, row
from tests.support.modes import Mode
from tests.support.sam import properties, template
from tests.support.telemetry import Output

SETUP = Setup()
TEN_MILLION = Workload(1e7, 10)

LINE_BYTES = 26
"""What CloudWatch adds to each line."""
ITEM_BYTES = 100
"""What DynamoDB adds to each item."""

workloads = st.builds(Workload, st.floats(1e4, 1e10), st.floats(1, 500), st.booleans())
setups = st.builds(
    Setup,
    network=st.sampled_from(sorted(figures.SECRETS)),
    stream_mode=st.sampled_from(["AUTO", "ON_DEMAND", "PROVISIONED"]),
    window=st.integers(0, 300),
)


def run(*arguments: str) -> str:
    """Return what the command prints."""
    done = CliRunner().invoke(main, ["cost", *arguments])
    assert 0 == done.exit_code, done.output
    return done.output


OTHER = {"Network": "external", "StreamMode": "ON_DEMAND", "Stage": "prod", "Architecture": "x86_64"}
OTHER |= {"AccessLog": "on", "BatchWindowSeconds": "60", "AlarmEmail": "a@example.com"}


def test_the_setup_matches_the_template() -> None:
    """Every parameter that changes the cost, or bounds it, is read as CloudFormation returns it, and each region of a site has prices."""
    parameters = {name: one.get("Default") for name, one in template()["Parameters"].items()}
    kinds = Counter(resource["Type"] for resource in template()["Resources"].values())
    sender, scaler = (
        [event["Properties"]["Schedule"] for event in one["Properties"]["Events"].values()]
        for one in map(template()["Resources"].get, ("SenderFunction", "ScaleFunction"))
    )

    assert SETUP.ingest_mb == properties("IngestFunction")["MemorySize"]
    assert SETUP.worker_mb == properties("WorkerFunction")["MemorySize"]
    assert SETUP.sender_mb == properties("SenderFunction")["MemorySize"]
    assert f"rate({SETUP.sender_minutes} minute)" == sender[0]
    assert [f"rate({figures.SCALER_MINUTES} minutes)", f"rate({figures.BACKLOG_MINUTES} minute)"] == scaler
    assert figures.BATCH_SIZE == properties("WorkerFunctionStream")["BatchSize"]
    assert figures.SECRETS.keys() == set(template()["Parameters"]["Network"]["AllowedValues"])
    assert SETUP == Setup.of({name: str(value) for name, value in parameters.items()})
    assert figures.PARAMETERS.keys() <= parameters.keys()
    other = Setup("external", "ON_DEMAND", is_prod=True, x86=True, access_log=True, window=60)
    assert other == Setup.of(OTHER)
    assert figures.SECRETS["external"] == kinds["AWS::SecretsManager::Secret"]
    assert figures.SECRETS["managed"] == kinds["AWS::SecretsManager::Secret"] - 1  # without the URL of Redis
    assert figures.POLICY_SECONDS == FRESH_SECONDS  # each instance reads the edge policy this often
    of_sites = {"us-east-1", "ap-northeast-1", "eu-central-1", "ap-northeast-2", "ap-northeast-3"}
    assert len(of_sites) == len(template()["Mappings"]["TdSites"])
    assert of_sites <= REGIONS.keys()
    cache = sluice_template().properties("Redis")["CacheUsageLimits"]
    assert (CACHE_GB, CACHE_UNITS) == (cache["DataStorage"]["Maximum"], cache["ECPUPerSecond"]["Maximum"])
    assert 7 == Setup.of({"MaxShards": "7"}).most_shards
    assert 4 == Setup.of({"StreamMode": "PROVISIONED", "ShardCount": "4"}).most_shards


def _written(message: str, fields: dict[str, Any]) -> int:
    """Return the size in bytes of a log line as a function writes it."""
    output = Output(ManualClock())
    with output.telemetry.invocation(Context(function_name="worker", deadline=0, now=lambda: 0)):
        output.telemetry.info(message, **fields)
    (line,) = output.lines()
    return len(json.dumps(line, separators=(",", ":"))) + LINE_BYTES


def test_the_estimate_covers_log_lines_and_ledger_items() -> None:
    """A batch and a run of the sender write one line each and no metrics; a batch also writes its span twice, and claims."""
    made = Delivery().map(shop="shop_db")
    made.td.create("shop_db", "views")
    for number in range(58):
        request_id, claim = f"01920000-0000-7000-8000-{number:012d}", int(not number)
        made.put(envelope("shop", {"views": [row(f"e{number}")]}, request_id=request_id, claim=claim))
    assert made.deliver() is None
    made.send()
    claims, spans = [], []
    for item in made.dynamodb.client.scan(TableName=TABLE)["Items"]:
        values = {name: str(next(iter(value.values()))) for name, value in item.items()}
        size = ITEM_BYTES + sum(len(name) + len(value) for name, value in values.items())
        if "g" in item:
            spans.append(size)
        elif values["pk"].startswith("put#"):
            claims.append(size)

    writes = made.dynamodb.calls.count("put_item") + made.dynamodb.calls.count("update_item")
    assert figures.LEDGER_WRITES == 2 * (writes - 2)  # each changes the worklist; chain and table: once
    assert figures.LEDGER_ITEM_BYTES / 2 < spans[0] <= figures.LEDGER_ITEM_BYTES <= 1024
    assert figures.CLAIM_BYTES / 2 < claims[0] <= figures.CLAIM_BYTES <= 1024
    assert 45 == figures.CLAIM_DAYS
    assert ["span", "sent"] == [line.message for line in made.telemetry.lines]
    assert {} == made.telemetry.counts
    for message, most in (("span", figures.BATCH_LOG_BYTES), ("sent", figures.RUN_LOG_BYTES)):
        (fields,) = made.telemetry.said(message)
        fields.pop("function_request_id", None)
        assert most / 2 < _written(message, fields) <= most
    line = Mode({"AccessLog": "on"}).properties("ApiStage")["AccessLogSettings"]["Format"]
    assert figures.ACCESS_LOG_BYTES / 2 < len(line) <= figures.ACCESS_LOG_BYTES


@pytest.mark.parametrize(
    ("workload", "most"),
    [
        (Workload(1e7), 40),
        (Workload(1e7, batch_ids=True), 48),
        (Workload(1e7, 10, batch_ids=True), 28),
        (Workload(1e5), 24),
        (Workload(1e9), 1450),
    ],
)
def test_a_month_costs_no_more_than_promised(workload: Workload, most: float) -> None:
    """The limits are for us-east-1, the template's defaults and a managed Redis; prod costs up to $2 more."""
    dev, prod = (total(workload, replace(SETUP, is_prod=one), US_EAST_1) for one in (False, True))

    assert max(dev, prod) <= most
    assert prod - dev <= 2


def test_the_keys_cost_cents_until_there_are_many_instances() -> None:
    """Kinesis asks for the stream's key every five minutes for each instance: about $26 a month for a thousand of them."""
    thousand = Workload(1000 * 20 * 730 * 3600)
    (few, many) = (
        next(line.usd for line in estimate(workload, SETUP, US_EAST_1) if line.component == "KMS")
        for workload in (TEN_MILLION, thousand)
    )

    assert few < 0.2
    assert 26 < many - thousand.requests * figures.COLD_SHARE / 1e4 * 0.03 < 27


@pytest.mark.parametrize("region", sorted(REGIONS))
def test_every_price_has_a_unit_and_a_source(region: str) -> None:
    """A region has every price; a price that was not seen at its source is listed as unconfirmed."""
    for name, price in prices.TABLE.items():
        assert REGIONS[region][name] > 0
        assert price["unit"]
        assert price["page"].startswith("https://aws.amazon.com/")
        is_seen = bool(price.get(f"seen in {region}")) or name == "lambda_requests"
        assert (name in unconfirmed(region)) is not is_seen


@given(workloads, setups, st.floats(1.0, 100.0))
def test_components_add_up_to_the_total(workload: Workload, setup: Setup, factor: float) -> None:
    """No component is negative, and the most expensive one comes first. A month with more events of the same kind is never cheaper."""
    lines = estimate(workload, setup, US_EAST_1)
    usd = total(workload, setup, US_EAST_1)
    more = replace(workload, events=workload.events * factor)

    assert all(line.usd >= 0 for line in lines)
    assert [line.usd for line in lines] == sorted((line.usd for line in lines), reverse=True)
    assert usd == pytest.approx(sum(line.usd for line in lines))
    assert total(more, setup, US_EAST_1) >= usd * (1 - 1e-9)


def test_batches_end_with_their_window_or_when_they_are_full() -> None:
    """Sparse records make a batch each, a steady stream makes one per window and shard, and a flood makes one per full batch."""
    setup = Setup(stream_mode="PROVISIONED", window=60)
    trickle, stream, flood = Workload(1e3, 1), Workload(1e8, 1), Workload(2e9, 1)

    assert 1e3 == pytest.approx(batches(trickle, setup), rel=0.05)
    assert 730 * 60 == pytest.approx(batches(stream, setup), rel=0.01)
    assert 2e9 / 5000 == pytest.approx(batches(flood, setup))


def test_shards_follow_the_load() -> None:
    """A provisioned stream has the shards that its busiest hour needs, AUTO has some to spare, and on-demand has twice as many."""
    provisioned = replace(SETUP, stream_mode="PROVISIONED")
    on_demand = replace(SETUP, stream_mode="ON_DEMAND")

    assert figures.AUTO_SHARE == GROW_ABOVE
    assert (1, 11) == (shard_count(TEN_MILLION, SETUP), shard_count(Workload(4e9, 1), SETUP))
    assert 1 == shard_count(TEN_MILLION, provisioned)
    assert 4 == shard_count(TEN_MILLION, on_demand)
    assert 8 == shard_count(Workload(4e9, 1), provisioned)
    assert 16 == shard_count(Workload(4e9, 1), on_demand)


def test_prints_each_component() -> None:
    """With the number of requests, the total and the date of the prices. In JSON, scripts get the same figures, with the setup behind them."""
    printed = run("--events", "10M")
    parameters = "--parameter-overrides=Network=external BatchWindowSeconds=30"
    line = ("--events=250k", "--events-per-request=1", parameters, "--region=ap-northeast-1", "--json")
    told = json.loads(run(*line))
    setup, region = replace(SETUP, network="external", window=30), REGIONS["ap-northeast-1"]

    assert printed.startswith("10,000,000 events a month in 1,000,000 requests, 10 events each")
    for line in estimate(TEN_MILLION, SETUP, US_EAST_1):
        assert line.component in printed
    assert f"${total(TEN_MILLION, SETUP, US_EAST_1):,.2f} per month" in printed
    assert "Prices of us-east-1 as of 2026-11-25" in printed
    assert "43.8 k looks at the overflow queue" in printed
    assert (250_000, 30) == (told["events"], told["setup"]["window"])
    assert round(total(Workload(250_000, 1), setup, region), 2) == told["usd"]
    assert round(total(Workload(1), setup, region), 2) == told["usd_idle"]
    assert "stream_in" in told["prices_not_confirmed"]
    assert run("--events=0").startswith("0 events a month in 0 requests")


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        *((f"--events={count}", 2, "is not a count") for count in ("-5", "ten", "1e7")),
        ("", 2, "use either --events or --worst"),
        ("--worst --events=10M", 2, "use either --events or --worst"),
        ("--worst --parameter-overrides=Netwrok=external", 1, "The template has no parameter Netwrok."),
        ("--worst --parameter-overrides='A", 1, "cannot be read: No closing quotation"),
        ("--worst --region=mars-1", 1, "there are no prices for mars-1: use --region with one of"),
    ],
)
def test_a_mistake_is_explained(line: str, code: int, said: str) -> None:
    """A count is written in digits, with k, M or G; parameters are the template's, regions those that have prices."""
    done = CliRunner(mix_stderr=False).invoke(main, ["cost", *line.split()])

    assert (code, True) == (done.exit_code, said in done.stderr)


@pytest.mark.parametrize(
    ("changed", "component"),
    [
        ({"throttling_rate": 2000}, "API Gateway"),
        ({"max_shards": 32}, "Kinesis"),
        ({"accounts": 2}, "S3"),
        ({"accounts": 50}, "SQS"),
    ],
)
def test_a_higher_limit_costs_more(changed: dict[str, int], component: str) -> None:
    """Each limit bounds what it is for."""

    def usd(accounts: int = 1, **limits: int) -> float:
        lines = worst(Setup(**limits), US_EAST_1, accounts)
        return next(line.usd for line in lines if line.component == component)

    assert usd(**changed) > usd()


def test_the_command_shows_the_worst_day() -> None:
    """It needs no number of events, and adds up. One account's budget fits into the stream, so nothing overflows for long."""
    told = json.loads(run("--worst", "--json"))
    usd = {line.component: line.usd for line in worst(Setup(), US_EAST_1)}

    assert (True, 0.0) == (usd["Kinesis"] < 10, usd["SQS"])
    assert round(sum(line["usd_per_day"] for line in told["components"]), 2) == told["usd_per_day"]
    assert 30 < told["usd_per_month"] / told["usd_per_day"] < 31
    assert f"At most ${told['usd_per_day']:,.2f} a day" in run("--worst")


@pytest.mark.parametrize("parameters", [{}, {"Network": "external"}])
def test_the_cost_is_shown_idle_expected_and_at_worst(parameters: dict[str, str]) -> None:
    """The parameters count: without the managed Redis, a stack without traffic costs less. A region may have no prices."""
    found, default = monthly_cost(parameters, "us-west-2"), monthly_cost({}, "us-west-2")

    assert found is not None
    assert default is not None
    assert found["idle"] < found["expected"] < found["worst"]
    assert ("Network" in parameters) == (found["idle"] < default["idle"])
    assert f"${found['idle']:,.0f} a month without traffic" in cost_line(parameters, "us-west-2")
    assert monthly_cost({}, "mars-1") is None
    assert "`sluice cost --events 10M --region us-east-1`" in cost_line({}, "mars-1")
