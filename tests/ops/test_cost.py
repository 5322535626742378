"""`sluice cost`: what a stack costs in a month."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from ops.cli import main
from ops.cost import bar, lean
from ops.estimate import AUTO_SHARE, SECRETS, Setup, Workload, batches, estimate, levers, shard_count, total
from ops.prices import REGIONS, UNITS, US_EAST_1, seen, unconfirmed
from scaler.rule import GROW_ABOVE
from tests.support.sam import properties, template

SETUP = Setup()
TEN_MILLION = Workload(1e7, 10)

workloads = st.builds(Workload, st.floats(1e4, 1e10), st.floats(1, 500))
setups = st.builds(
    Setup,
    network=st.sampled_from(sorted(SECRETS)),
    stream_mode=st.sampled_from(["AUTO", "ON_DEMAND", "PROVISIONED"]),
    retention_hours=st.integers(24, 8760),
    window=st.integers(0, 300),
)


def run(*arguments: str) -> str:
    """Return what the command prints."""
    done = CliRunner().invoke(main, ["cost", *arguments])
    assert 0 == done.exit_code, done.output
    return done.output


def defaults() -> dict[str, object]:
    """Return the defaults of the template's parameters."""
    return {name: parameter.get("Default") for name, parameter in template()["Parameters"].items()}


def watched(resource: dict[str, Any]) -> int:
    """Return how many metrics a resource watches as an alarm."""
    if resource["Type"] != "AWS::CloudWatch::Alarm":
        return 0
    queries = resource["Properties"].get(
        "Metrics", [{"MetricStat": resource["Properties"].get("MetricName")}]
    )
    return sum("MetricStat" in query.get("Fn::If", (None, query))[1] for query in queries)


def test_memory_and_windows_are_the_templates() -> None:
    """The estimate counts with the memory sizes, batches and schedules that the template sets."""
    parameters = defaults()
    kinds = Counter(resource["Type"] for resource in template()["Resources"].values())
    redrive = template()["Resources"]["RedriveFunction"]["Properties"]["Events"]["Schedule"]

    assert SETUP.ingest_mb == properties("IngestFunction")["MemorySize"]
    assert SETUP.worker_mb == properties("WorkerFunction")["MemorySize"]
    assert SETUP.redrive_mb == properties("RedriveFunction")["MemorySize"]
    assert f"rate({SETUP.redrive_minutes} minutes)" == redrive["Properties"]["Schedule"]
    assert SETUP.stream_mode == parameters["StreamMode"]
    assert SETUP.shards == parameters["ShardCount"]
    assert SETUP.retention_hours == parameters["RetentionHours"]
    assert SETUP.archive_days == parameters["ArchiveDays"]
    assert SETUP.batch_size == parameters["BatchSize"]
    assert SETUP.window == parameters["BatchWindowSeconds"]
    assert SETUP.x86 == (parameters["Architecture"] == "x86_64")
    assert SETUP.network == parameters["Network"]
    assert SECRETS.keys() == set(template()["Parameters"]["Network"]["AllowedValues"])
    assert SETUP.alarms == sum(map(watched, template()["Resources"].values()))
    assert (SETUP.dashboards == 1) == (parameters["Dashboard"] == "on")
    assert SECRETS["external"] == kinds["AWS::SecretsManager::Secret"]
    assert SECRETS["managed"] == kinds["AWS::SecretsManager::Secret"] - 1  # without the URL of Redis


@pytest.mark.parametrize("region", sorted(REGIONS))
def test_every_price_has_a_unit_a_page_and_a_word_of_where_it_was_seen(region: str) -> None:
    """Each region has every price; where one was seen nowhere, it is among the unconfirmed."""
    assert UNITS.keys() == REGIONS[region].keys()
    for name, unit in UNITS.items():
        assert REGIONS[region][name] > 0
        assert unit.page.startswith("https://aws.amazon.com/")
        assert (name in unconfirmed(region)) == (not seen(region, name))


@given(workloads, setups)
def test_components_make_up_the_total(workload: Workload, setup: Setup) -> None:
    """The total is the sum of the components, none of which is negative, and the dearest stands first."""
    lines = estimate(workload, setup, US_EAST_1)

    assert all(line.usd >= 0 for line in lines)
    assert [line.usd for line in lines] == sorted((line.usd for line in lines), reverse=True)
    assert total(workload, setup, US_EAST_1) == pytest.approx(sum(line.usd for line in lines))


@given(workloads, setups, st.floats(1.0, 100.0))
def test_more_events_cost_no_less(workload: Workload, setup: Setup, factor: float) -> None:
    """A month with more events of the same kind is not cheaper."""
    more = replace(workload, events=workload.events * factor)

    assert total(more, setup, US_EAST_1) >= total(workload, setup, US_EAST_1) * (1 - 1e-9)


@given(workloads, setups)
def test_a_lever_saves_what_it_says(workload: Workload, setup: Setup) -> None:
    """Levers save something, and the biggest is named first."""
    found = [lever.saves for lever in levers(workload, setup, US_EAST_1)]

    assert all(saves > 0 for saves in found)
    assert found == sorted(found, reverse=True)


def test_batches_end_with_their_window_or_when_they_are_full() -> None:
    """A trickle makes a batch per record, an even stream one per window and shard, a flood one per full batch."""
    setup = Setup(stream_mode="PROVISIONED", window=60, batch_size=5000)
    trickle, stream, flood = Workload(1e3, 1), Workload(1e8, 1), Workload(2e9, 1)

    assert 1e3 == pytest.approx(batches(trickle, setup), rel=0.05)
    assert 730 * 60 == pytest.approx(batches(stream, setup), rel=0.01)
    assert 2e9 / 5000 == pytest.approx(batches(flood, setup))


def test_shards_follow_the_load() -> None:
    """A provisioned stream has the shards that its busiest hour needs, an automatic one some spare, on demand twice as many."""
    provisioned = replace(SETUP, stream_mode="PROVISIONED")
    on_demand = replace(SETUP, stream_mode="ON_DEMAND")

    assert AUTO_SHARE == GROW_ABOVE
    assert (1, 11) == (shard_count(TEN_MILLION, SETUP), shard_count(Workload(4e9, 1), SETUP))
    assert 1 == shard_count(TEN_MILLION, provisioned)
    assert 4 == shard_count(TEN_MILLION, on_demand)
    assert 8 == shard_count(Workload(4e9, 1), provisioned)
    assert 16 == shard_count(Workload(4e9, 1), on_demand)


def test_ten_million_events_a_month_in_its_cheapest_settings() -> None:
    """Ten million events cost about $25 with a Redis elsewhere, and $31 with a managed one."""
    external, managed = (lean(replace(SETUP, network=network)) for network in ("external", "managed"))

    assert round(total(TEN_MILLION, external, US_EAST_1)) <= 25
    assert round(total(TEN_MILLION, managed, US_EAST_1)) <= 31


def test_bars_show_ratios() -> None:
    """Ten times the price is always the same length longer."""
    lengths = [len(bar(price, 1000)) for price in (0.1, 1, 10, 100, 1000)]

    assert [1, 10, 20, 30, 40] == lengths


def test_it_prints_components_and_levers() -> None:
    """People see each component, the total, the biggest lever, the volumes, and the date of the prices."""
    printed = run("--events", "10M")

    for line in estimate(TEN_MILLION, SETUP, US_EAST_1):
        assert line.component in printed
    assert f"${total(TEN_MILLION, SETUP, US_EAST_1):,.2f} a month" in printed
    assert f"The biggest lever: {levers(TEN_MILLION, SETUP, US_EAST_1)[0].setting}" in printed
    assert "Prices of us-east-1 as of 2026-11-25" in printed


def test_it_prints_json() -> None:
    """Scripts are given the same, with the setup that was counted with."""
    told = json.loads(
        run(
            "--events=250k",
            "--events-per-request=1",
            "--network=external",
            "--region=ap-northeast-1",
            "--window=30",
            "--json",
        )
    )
    setup = replace(SETUP, network="external", window=30)

    assert 250_000 == told["events"]
    assert 30 == told["setup"]["window"]
    assert round(total(Workload(250_000, 1), setup, REGIONS["ap-northeast-1"]), 2) == told["usd"]
    assert "stream_in" in told["prices_not_confirmed"]


@pytest.mark.parametrize("count", ["0", "-5", "ten", "10 M", "1e7"])
def test_it_refuses_what_is_no_count(count: str) -> None:
    """A number of events is written in digits, with k, M or G."""
    done = CliRunner().invoke(main, ["cost", f"--events={count}"])

    assert 2 == done.exit_code
    assert "is no count" in done.output
