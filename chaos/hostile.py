"""`make hostile`: let one sender with a write key do its worst beside 49 ordinary accounts, in simulated time.

First it sends fifty requests a second, each with 500 events for 500 tables, most of them new, and with ever new columns, whatever the
responses are. Measures how long the others' rows take, and what Treasure Data and the bucket then hold.

Then it sends 500 requests a second of 2 MiB, compressed to a few kilobytes, with one key and with a thousand keys of one account, and
measures how much is stored and who is refused. Last, an honest peak: the account's visitors send ten times as much as usual.
"""

import sys
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from json import dumps
from math import ceil

import click

from chaos import isolation
from chaos.flood import VISITORS_PER_SECOND, Flood, Flooded
from chaos.functions import Functions
from chaos.pipeline import Pipeline
from chaos.schedule import START, Schedule
from chaos.traffic import TABLES, payload_of
from chaos.world import BUCKET, World
from doubles.event_source import Outcome, Returned

FLOOD_PER_SECOND = 500
STORED_A_MINUTE = 26
"""How many bodies of the flood may be stored in a minute."""
MOST_SHARDS = 4
"""How far the flood may let the stream grow."""
REQUESTS_PER_SECOND = 50
TABLES_PER_REQUEST = 500
COLUMNS = 5000
"""The number of different columns that the hostile sender names."""
TABLES_LIMIT = 200
"""The default number of tables of an account."""
COLUMNS_LIMIT = 512
"""The maximum number of columns of one event."""

_BEGINS = 60.0  # seconds after the start


@dataclass(frozen=True, slots=True)
class Suffered:
    """The result of one run.

    `p99` (seconds from acceptance to Treasure Data) and `wrong` (rows that are not there exactly once) are of the other accounts, `statuses`
    and `accepted` events of the hostile sender, `tables` new ones and `columns` of its widest table, `stored` bytes and `objects` of the
    bucket.
    """

    p99: float
    wrong: int
    statuses: Counter[int]
    accepted: int
    tables: int
    columns: int
    stored: int
    objects: int


class _Sender:
    """The hostile sender. It builds each request when it is due."""

    def __init__(self, pipeline: Pipeline, account: str, seconds: float) -> None:
        self._pipeline = pipeline
        self._key = pipeline.world.key(account)
        self._number = 0
        self.statuses: Counter[int] = Counter()
        self.accepted = 0
        for index in range(int(seconds * REQUESTS_PER_SECOND)):
            at = START + _BEGINS + index / REQUESTS_PER_SECOND
            pipeline.world.simulation.at(at, self._send)

    def _send(self) -> None:
        events = []
        for _ in range(TABLES_PER_REQUEST):
            self._number += 1
            table = f"new_table_{self._number}" if self._number % 2 else f"old_table_{self._number % 400}"
            events.append({"table": table, f"column_{self._number % COLUMNS}": 1})
        body = b64encode(dumps(events).encode()).decode()
        headers = {"x-write-key": self._key, "content-type": "application/json"}
        payload = payload_of("POST", "/v1/events", "", headers) | {"body": body, "isBase64Encoded": True}
        payload["requestContext"]["requestId"] = f"hostile {self._number}"
        self._pipeline.ingest.invoke(payload, self._answered)

    def _answered(self, outcome: Outcome) -> None:
        status = outcome.value["statusCode"] if isinstance(outcome, Returned) else 0
        self.statuses[status] += 1
        if status == 200 and isinstance(outcome, Returned):
            self.accepted += int(outcome.value["body"].partition('"accepted":')[2].partition(",")[0])


def attack(schedule: Schedule, seconds: float) -> Suffered:
    """Run a schedule of ordinary traffic beside a hostile sender that sends for so many seconds."""
    world = World(schedule)
    pipeline = Pipeline(world, Functions(world))
    account, database = schedule.setup.databases[0]
    for sent in schedule.sent:
        world.simulation.at(sent.at, partial(pipeline.send, sent))
    sender = _Sender(pipeline, account, seconds)
    pipeline.begin()
    world.simulation.run(schedule.end)
    pipeline.rest(hours=2)
    times: dict[int, list[float]] = {}
    columns: dict[str, set[str]] = {}
    for one in world.td.imports():
        for row in one.rows:
            if one.database == database:
                columns.setdefault(one.table, set()).update(row)
            else:
                times.setdefault(int(row["n"]), []).append(one.at)
    ordinary = [number for number, sent in pipeline.sent.items() if sent.account != account]
    delays = sorted(times[number][0] - pipeline.accepted[number] for number in ordinary if number in times)
    objects = world.bucket.objects(BUCKET)
    suffered = Suffered(
        p99=isolation.percentile(delays, 0.99),
        wrong=sum(len(times.get(number, ())) != 1 for number in ordinary),
        statuses=sender.statuses,
        accepted=sender.accepted,
        tables=len(columns.keys() - set(TABLES)),
        columns=max(map(len, columns.values()), default=0),
        stored=sum(len(one.body) for one in objects.values()),
        objects=len(objects),
    )
    world.close()
    return suffered


@click.command(help=__doc__)
@click.option("--minutes", default=20.0, help="Simulated minutes of ordinary traffic.")
@click.option("--attacked", default=10.0, help="Simulated minutes of hostile traffic within them.")
@click.option("--flooded", default=5.0, help="Simulated minutes of the flood of large bodies.")
def main(minutes: float, attacked: float, flooded: float) -> None:
    """Measure, print the results and exit."""
    floods = _show(flood_checks(int(flooded * 60)))
    schedule = isolation.steady(minutes=minutes, every=10)
    usual, suffered = attack(schedule, 0), attack(schedule, attacked * 60)
    hour = 60 / attacked
    stored, objects = (suffered.stored - usual.stored) * hour, (suffered.objects - usual.objects) * hour
    ratio = suffered.p99 / usual.p99
    checks = {
        f"others' 99th percentile: {usual.p99:.1f} s without it, {suffered.p99:.1f} s with it,"
        f" {ratio:.2f} times": ratio <= isolation.BOUND,
        f"others' rows not delivered exactly once: {suffered.wrong}": not suffered.wrong,
        f"tables created: {suffered.tables:,} of at most {TABLES_LIMIT}": suffered.tables <= TABLES_LIMIT,
        f"columns of a table: {suffered.columns:,} of at most {COLUMNS_LIMIT}": suffered.columns
        <= COLUMNS_LIMIT,
        f"bucket growth in an hour: {stored / 2**20:,.0f} MB and {objects:,.0f} objects": stored < 2**30
        and objects < 20_000,
    }
    answers = ", ".join(f"{number:,} times {status}" for status, number in sorted(suffered.statuses.items()))
    click.echo(
        f"Responses to the hostile sender: {answers}; {suffered.accepted:,} of its events were accepted."
    )
    sys.exit(not (_show(checks) and floods))


def _show(checks: Mapping[str, bool]) -> bool:
    """Print checks; return whether all hold."""
    for told, holds in checks.items():
        click.echo(f"{'✓' if holds else '✗'} {told}")
    return all(checks.values())


def flood_checks(seconds: int) -> dict[str, bool]:
    """Return what holds during floods of large bodies and during an honest peak, each of so many seconds."""
    usual = Flood().run(seconds, 0)
    checks: dict[str, bool] = {}
    for keys in (1, 1000):
        found = Flood(keys).run(seconds, FLOOD_PER_SECOND)
        answered = found.statuses["hostile"]
        answers = ", ".join(f"{number:,} times {status}" for status, number in sorted(answered.items()))
        click.echo(f"A flood with {keys:,} keys for {seconds} s: {answers}.")
        refused = {sender: _refused(found, sender) for sender in ("visitors", "others")}
        checks |= {
            f"{keys:,} keys: {answered[200]} stored": answered[200] <= STORED_A_MINUTE * ceil(seconds / 60),
            f"{keys:,} keys: {found.shards} shards": found.shards <= MOST_SHARDS,
            f"{keys:,} keys: others' 99th percentile is {found.p99 / usual.p99:.2f} times": found.p99
            <= isolation.BOUND * usual.p99,
            f"{keys:,} keys: refused of the account's visitors {refused['visitors']}, of others {refused['others']}": not any(
                refused.values()
            ),
        }
    for counters in (True, False):
        peak = Flood(counters=counters).run(seconds, 0, 10 * VISITORS_PER_SECOND)
        refused_of_peak = _refused(peak, "visitors") + _refused(peak, "others")
        away = "" if counters else ", without counters"
        checks[f"an honest peak{away}: {refused_of_peak} requests refused"] = not refused_of_peak
    return checks


def _refused(found: Flooded, sender: str) -> int:
    return found.statuses[sender].total() - found.statuses[sender][200]


if __name__ == "__main__":
    main()
