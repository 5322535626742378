"""Reports Sluice's monthly cost, calculated from the other benchmarks' results, and the cost of alternatives."""

from benchmarks.alternatives import ALTERNATIVES, LEAST_EVENTS, ranges_where_dearer
from benchmarks.chart import Axis, Line, lines
from benchmarks.report import Report
from benchmarks.traffic import EVENT_ROWS
from ops.cost.estimate import (
    CORE_MB,
    IDLE,
    INGEST_EVENT_CPU,
    INGEST_REQUEST_CPU,
    WORKER_BATCH_CPU,
    WORKER_ROW_CPU,
    Setup,
    Workload,
    estimate,
    lean,
    levers,
    total,
)
from ops.cost.prices import DEFAULT_REGION, READ_ON, REGIONS, UNITS, seen
from ops.screen import short

EVENTS = 1e7
_VOLUMES = [10 ** (4 + step / 4) for step in range(25)]


def run(report: Report) -> None:
    """Calculate, and report tables, a chart and ratios."""
    prices = REGIONS[DEFAULT_REGION]
    setups = {
        f"{network}, {name}": change(Setup(network=network))
        for network in ("managed", "external")
        for name, change in (("defaults", lambda setup: setup), ("leanest", lean))
    }
    _components(report, setups)
    _levers(report)
    _memory(report)
    _alternatives(report, setups)
    _prices(report)
    for network in ("external", "managed"):
        workload = Workload(EVENTS, 10, batch_ids=True)
        report.ratio(f"cost_usd_{network}", total(workload, Setup(network=network), prices))
        report.ratio(f"cost_usd_{network}_lean", total(workload, lean(Setup(network=network)), prices))


def _components(report: Report, setups: dict[str, Setup]) -> None:
    prices = REGIONS[DEFAULT_REGION]
    report.say(
        "This command measures nothing. Like `sluice cost`, it calculates from what the other benchmarks measured, from the"
        " template, and from assumptions about what only AWS could show ([ops/cost/estimate.py](../ops/cost/estimate.py) says which is which)."
        f"\n\nUS dollars per month for {EVENTS / 1e6:.0f} million events, ten per request, in {DEFAULT_REGION}, without free tiers."
        " Leanest means `RetentionHours=24 BatchWindowSeconds=60`. Ten events per request come from the browser SDK, with batch ids:"
    )
    costs = [
        {line.component: line.usd for line in estimate(Workload(EVENTS, 10, batch_ids=True), setup, prices)}
        for setup in setups.values()
    ]
    rows = [
        [component, *(f"{cost[component]:.2f}" if component in cost else "–" for cost in costs)]
        for component in costs[0]
    ]
    rows.append(["**total**", *(f"**{sum(cost.values()):.2f}**" for cost in costs)])
    for name, workload in (
        ("total, one event per request", Workload(EVENTS, 1)),
        ("the same, each with a batch id", Workload(EVENTS, 1, batch_ids=True)),
        ("total of 100,000 pixels", Workload(1e5)),
        ("total of 1,000 million pixels", Workload(1e9)),
        ("total without traffic", IDLE),
    ):
        rows.append([name, *(f"{total(workload, setup, prices):.2f}" for setup in setups.values())])
    report.table(("component", *setups), rows)
    _before(report)


# What `sluice cost` printed on 2026-11-25, before three changes: no VPC, a stream that sizes itself, no log lines for successes.
_BEFORE = (
    ("10 million pixels", Workload(1e7), 111.03),
    ("10 million events, ten per request", Workload(1e7, 10, batch_ids=True), 90.71),
    ("100,000 pixels", Workload(1e5), 83.88),
    ("1,000 million pixels", Workload(1e9), 2186.18),
    ("no traffic", IDLE, 82.68),
)


def _before(report: Report) -> None:
    report.say(
        "Before and after three changes on 2026-11-25: no VPC, a stream that sizes itself, and no log lines for successes:"
    )
    rows = [
        [name, f"${usd:.2f}", f"${total(workload, Setup(), REGIONS[DEFAULT_REGION]):.2f}"]
        for name, workload, usd in _BEFORE
    ]
    report.table(("a month, defaults", "before", "now"), rows)


def _levers(report: Report) -> None:
    found = levers(Workload(EVENTS, 1), Setup(), REGIONS[DEFAULT_REGION])
    report.say("Ways to reduce the cost, each on its own, for one event per request with `Network=managed`:")
    report.table(
        ("change", "saves per month", "trade-off"),
        [[one.setting, f"${one.saves:.2f}", one.price] for one in found],
    )


def _memory(report: Report) -> None:
    workload, prices = Workload(EVENTS, 1), REGIONS[DEFAULT_REGION]
    rows = []
    for megabytes in (128, 256, 512, 1024, CORE_MB):
        setup = Setup(ingest_mb=megabytes, worker_mb=megabytes)
        usd = {line.component: line.usd for line in estimate(workload, setup, prices)}
        share = min(1.0, megabytes / CORE_MB)
        pixel = (INGEST_REQUEST_CPU + INGEST_EVENT_CPU) / share
        batch = (WORKER_BATCH_CPU + EVENT_ROWS * WORKER_ROW_CPU) / share
        rows.append(
            [
                f"{megabytes} MB",
                f"{share:.2f}",
                f"{pixel * 1000:.2f} ms",
                f"${usd['Lambda, ingest']:.2f}",
                f"{batch * 1000:.0f} ms",
                f"${usd['Lambda, worker']:.2f}",
            ]
        )
    report.say(
        "More memory gets a larger share of a core. For the ingest this pays off in cold starts, which visitors wait for. The"
        " worker mostly waits for other services. It uses about 80 MB when idle, plus what a 6 MB event adds (see"
        " `make bench-worker`). With one event per request:"
    )
    report.table(
        (
            "memory",
            "share of a core",
            "CPU work of a pixel",
            "ingest per month",
            f"CPU work of {EVENT_ROWS:,} rows",
            "worker per month",
        ),
        rows,
    )


def _alternatives(report: Report, setups: dict[str, Setup]) -> None:
    prices = REGIONS[DEFAULT_REGION]
    report.say(
        "Alternatives, by their own published figures, and the monthly volumes at which Sluice costs more, for each setup:"
    )
    rows = []
    for per_request in (10, 1):
        for alternative in ALTERNATIVES:
            where = []
            for setup in setups.values():

                def ours(events: float, setup: Setup = setup, per_request: int = per_request) -> float:
                    return total(Workload(events, per_request), setup, prices)

                where.append(_ranges(ranges_where_dearer(ours, alternative), alternative.most))
            rows.append(
                [
                    f"{alternative.name}; Sluice with {per_request} per request",
                    f"${alternative.usd(EVENTS):.2f}",
                    *where,
                ]
            )
    head = ("alternative", f"at {EVENTS / 1e6:.0f} M", *(f"Sluice costs more: {name}" for name in setups))
    report.table(head, rows)
    report.say(
        "\n".join(
            f"- {alternative.name} covers {alternative.covers}. Source: {alternative.source}."
            for alternative in ALTERNATIVES
        )
    )
    title = "Dollars per million events"
    sluice = [
        Line(
            name,
            [(events, total(Workload(events, 10), setup, prices) / events * 1e6) for events in _VOLUMES],
            ours=True,
        )
        for name, setup in (
            ("Sluice, managed", setups["managed, defaults"]),
            ("Sluice, leanest", setups["external, leanest"]),
        )
    ]
    others = [
        Line(
            alternative.label,
            [
                (events, alternative.usd(events) / events * 1e6)
                for events in _VOLUMES
                if events <= alternative.most
            ],
        )
        for alternative in ALTERNATIVES
    ]
    chart = lines(
        title, Axis("events a month", logarithmic=True), Axis("USD", logarithmic=True), [*sluice, *others]
    )
    report.chart("cost", title, chart)


def _ranges(ranges: list[tuple[float, float]], most: float) -> str:
    if not ranges:
        return f"nowhere up to {short(most)}"
    said = []
    for low, high in ranges:
        if high >= most:
            said.append("everywhere" if low <= LEAST_EVENTS else f"from {short(low)}")
        else:
            said.append(f"up to {short(high)}" if low <= LEAST_EVENTS else f"{short(low)} to {short(high)}")
    return ", ".join(said)


def _prices(report: Report) -> None:
    report.say(
        f"Prices of {DEFAULT_REGION} as of {READ_ON}, in US dollars. AWS's pages show most figures only with JavaScript; the table says"
        " where each was seen:"
    )
    rows = [
        [
            f"{unit.per} ([page]({unit.page}))",
            f"{REGIONS[DEFAULT_REGION][name]:.10g}",
            seen(DEFAULT_REGION, name) or "not confirmed",
        ]
        for name, unit in UNITS.items()
    ]
    report.table(("unit", "price", "seen in"), rows)
    others = sorted(REGIONS.keys() - {DEFAULT_REGION})
    confirmed = {region: [name for name in UNITS if seen(region, name)] for region in others}
    report.say(
        "Other regions, where prices differ. Most are plausible from the region's other prices and not confirmed; * marks those that are:"
    )
    rows = []
    for name, unit in UNITS.items():
        each = [
            f"{REGIONS[region][name]:.10g}{'*' if name in confirmed[region] else ''}" for region in others
        ]
        if any(REGIONS[region][name] != REGIONS[DEFAULT_REGION][name] for region in others):
            rows.append([unit.per, *each])
    report.table(("unit", *others), rows)
