"""The services of one schedule, and the state about them that only the tests know."""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from copy import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, override

from chaos import clients, plans, td_faults
from chaos.access import RESOURCES
from chaos.effects import Effects
from chaos.schedule import START, Schedule
from chaos.simulation import Simulation
from chaos.traffic import ACCOUNT_KEYS, SECRETS, TABLES
from chaos.trouble import Kind, Trouble, Window
from doubles.dynamodb import MemoryDynamoDB
from doubles.kinesis import MemoryKinesis
from doubles.redis import MemoryRedis
from doubles.s3 import MemoryS3
from doubles.sqs import MemorySQS
from doubles.treasure_data import API_KEY, Action, InProcess, Request, Response, TreasureData
from doubles.treasure_data import Settings as TdSettings
from local.resources import COUNTERS, LEDGER, NOTICES
from shared import policy, write_key
from shared.accounts import Account
from worker import account_store
from worker.span_object import PREFIX

STREAM = RESOURCES.stream
TABLE = RESOURCES.ledger_table
BUCKET = RESOURCES.data_bucket
VISIBILITY_SECONDS = 1800.0
"""The template's visibility time-out: for so long a received message is hidden from other drainers."""
TD_MEMORY_SECONDS = 3600.0
_COUNTED_WHEN_MET = {Kind.TD_STALE_JOB, Kind.TD_SCHEMA_LAGS, Kind.TD_NO_SCHEMA}
_FAR_AHEAD = 3 * 3600.0
_STAMP_ERROR = 140.0  # seconds; stamps run back by less than worker.passing.MARGIN_SECONDS
TD_QUERY_DELAY_SECONDS = 600.0


class _Kinesis(MemoryKinesis):
    """Kinesis that reports when a record arrives."""

    landed: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.last: dict[str, int] = {}

    @override
    def _append(self, *record: Any) -> dict[str, Any]:
        answer = super()._append(*record)
        self.last[answer["ShardId"]] = int(answer["SequenceNumber"])
        self.landed()
        return answer


class _SQS(MemorySQS):
    """SQS that reports when a message is sent."""

    landed: Callable[[], None] = staticmethod(lambda: None)

    @override
    def send_message(self, **request: Any) -> dict[str, str]:
        answer = super().send_message(**request)
        self.landed()
        return answer


class World:
    """The services, their faulty clients, and the accounts file."""

    holds = False  # from the moment when the ledger is there again as it was earlier until it is repaired

    def __init__(self, schedule: Schedule, *, traced: bool = False, effects: type[Effects] = Effects) -> None:
        setup, seed = schedule.setup, schedule.seed
        self.schedule = schedule
        self.simulation = simulation = Simulation(START, traced=traced)
        self.trouble = Trouble(simulation, list(schedule.windows), seed)
        self.effects = effects(simulation, self.trouble, seed)
        # without errors; sleeping delays the running process
        self.clock: Any = SimpleNamespace(now=lambda: simulation.now, sleep=simulation.delay)
        self.counts: Counter[str] = Counter()  # metrics, summed over all sandboxes
        # the chunk limits, rows and bytes, of sandboxes built from now on, in turn
        self.cuts: list[tuple[int, int]] = [(setup.chunk_max_rows, 16 << 20)]
        self.away: dict[str, bytes] = {}  # the objects that are deleted or damaged, as they were
        # told when an object is lost, with its name, and when the ledger is restored or repaired
        self.told: Callable[..., None] = lambda _what, **_fields: None
        # returns whether a row is of a person whom the run forgets
        self.is_forgotten: Callable[[Mapping[str, Any]], bool] = lambda _row: False
        # called with each gauge that a function reports
        self.on_gauge: Callable[[str, float], None] = lambda _metric, _value: None
        self._sandboxes = 0

        self.stream = _Kinesis(self.clock.now, seed=seed)
        self.create_stream()
        self.queue = _SQS(self.clock.now)
        hidden = {"VisibilityTimeout": str(VISIBILITY_SECONDS)}
        self.queue_url = self.queue.create_queue(QueueName="overflow", Attributes=hidden)["QueueUrl"]
        kept = hidden | {"MessageRetentionPeriod": NOTICES["MessageRetentionPeriod"]}
        notices = self.queue.create_queue(QueueName="overflow-notices", Attributes=kept)
        self.notices_url = notices["QueueUrl"]
        self.table = MemoryDynamoDB(self.clock.now)
        self.table.create_table(TableName=TABLE, **LEDGER)
        self.table.create_table(TableName=RESOURCES.counters_table, **COUNTERS)
        self.table.lag_indexes(TABLE, setup.index_lag)
        self.bucket = MemoryS3(self.clock.now)
        self.bucket.create_bucket(Bucket=BUCKET)
        self.redis_server = MemoryRedis()
        self.td = TreasureData(
            clock=self.clock,
            settings=TdSettings(
                id_memory=TD_MEMORY_SECONDS,
                duplicate_status=setup.duplicate_status,
                query_delay=TD_QUERY_DELAY_SECONDS,
                job_seconds=setup.job_seconds,
            ),
            keys={API_KEY: frozenset(Action) - (set() if setup.may_query else {Action.QUERY})},
            strike=partial(td_faults.strike, self.trouble),
        )
        modes = dict(setup.plans)
        planned = {table for sent in schedule.sent for _, table in sent.events} | set(TABLES)
        tables = tuple(sorted(planned - {plans.SURPRISE}))
        self.accounts = {
            name: Account(database, plan=plans.plan(modes[name], tables) if name in modes else None)
            for name, database in setup.databases
        }
        # by account, every database that it was ever mapped to
        self.mapped: defaultdict[str, set[str]] = defaultdict(set)
        self.apply_accounts()

        self.kinesis = clients.Kinesis(self.stream, self.effects)
        self.sqs = clients.SQS(self.queue, self.effects)
        self.dynamodb = clients.DynamoDB(self.table, self.effects)
        self.s3 = clients.S3(self.bucket, self.effects)
        self.redis: Any = clients.Redis(self.redis_server, self.effects)
        write_keys = json.dumps(SECRETS | {write_key.FORGET_KEY: "recognises persons"})
        secrets = {RESOURCES.td_api_key_secret: API_KEY, RESOURCES.write_key_secret: write_keys}
        # Secrets Manager without faults: the functions cache secrets in memory
        self.secrets = SimpleNamespace(
            get_secret_value=lambda **request: {"SecretString": secrets[request["SecretId"]]}
        )
        self.http = InProcess(self._ask_td, self.clock)
        self._set_tables_up()
        for window in schedule.windows:
            self._set_up(window)

    def create_stream(self) -> None:
        """Create an empty stream."""
        setup = self.schedule.setup
        self.stream.last.clear()
        self.stream.create_stream(StreamName=STREAM, ShardCount=setup.shards)
        hours = setup.retention_hours
        self.stream.increase_stream_retention_period(StreamName=STREAM, RetentionPeriodHours=hours)

    def apply_accounts(self) -> None:
        """Apply the accounts file to Redis and publish the edge policy, as an operator does."""
        for name, account in self.accounts.items():
            self.mapped[name].add(account.database)
        entries = {name: account.to_entry() for name, account in self.accounts.items()}
        document = policy.encode(entries, int(self.simulation.now * 1000))
        self.bucket.put_object(Bucket=BUCKET, Key=policy.KEY, Body=document)
        account_store.apply(self.redis_server, ACCOUNT_KEYS, self.accounts, self.simulation.now)

    def _ask_td(self, request: Request) -> Response:
        seconds = 0.15 * (0.4 + 1.2 * self.effects.chance.random())
        handle = partial(self.td.handle, request)
        response: Response = self.effects.perform(f"td {request.method} {request.target}", handle, seconds)
        return response

    def remap(self, name: str, **changes: Any) -> None:
        """Change an account in the file and apply the file, unless Redis is being kept empty."""
        self.accounts[name] = replace(self.accounts[name], **changes)
        if not self.trouble.active(Kind.REDIS_EMPTY):
            self.apply_accounts()

    def entropy(self) -> Callable[[int], bytes]:
        """Return a new random source for one sandbox."""
        self._sandboxes += 1
        return random.Random(f"{self.schedule.seed}/sandbox/{self._sandboxes}").randbytes

    def expire(self) -> None:
        """Delete the ledger's items whose time to live has passed, as DynamoDB does within days."""
        for item in self.table.items(TABLE):
            if "ttl" in item and int(item["ttl"]["N"]) < self.simulation.now:
                self.table.delete_item(TableName=TABLE, Key={name: item[name] for name in ("pk", "sk")})

    def count(self, metric: str, value: int = 1) -> None:
        """Add to a metric of any function."""
        self.counts[metric] += value

    def _set_tables_up(self) -> None:
        if not self.schedule.setup.may_query:
            self.trouble.count(Kind.UNASKABLE)
        if self.schedule.setup.is_long:
            self.trouble.count(Kind.WEEKS)
        if not self.schedule.setup.tables_exist:
            self.trouble.count(Kind.TD_TABLE_MISSING)
            return
        for database in sorted({account.database for account in self.accounts.values()}):
            self.td.create(database, *TABLES)

    def open(self, window: Window) -> None:
        """Open a window of trouble, and schedule the changes that it makes to the services."""
        self.trouble.add(window)
        self._set_up(window)

    def _set_up(self, window: Window) -> None:
        kind, distribute = window.kind, partial(self.stream.distribute, StreamName=STREAM)
        changes: dict[Kind, tuple[Callable[[], object], Callable[[], object]]] = {
            Kind.REDIS_EMPTY: (self.redis_server.flushall, self.apply_accounts),
            Kind.KINESIS_AUTO: (distribute, partial(distribute, strategy="USER_PARTITION_KEY")),
        }
        if kind in td_faults.SETTINGS:
            alter = partial(self._alter_td, kind)
            changes[kind] = partial(alter, begins=True), partial(alter, begins=False)
        if kind in changes:
            begin, end = changes[kind]
            self.simulation.at(window.begin, lambda: self._begin(kind, begin))
            self.simulation.at(window.end, end)
        elif kind in {Kind.KINESIS_STAMPS, Kind.KINESIS_AHEAD}:
            self.stream.arrival_error = self._wrong_stamp
        elif kind in {Kind.S3_GONE, Kind.S3_DAMAGED}:
            self.simulation.at(window.begin, lambda: self._damage(window))
            self.simulation.at(window.end, lambda: self.bring_back(kind))

    def _begin(self, kind: Kind, change: Callable[[], object]) -> None:
        """Change a service when a window begins, unless everything has healed."""
        if self.trouble.active(kind):
            if kind not in _COUNTED_WHEN_MET:
                self.trouble.count(kind)
            change()

    def _damage(self, window: Window) -> None:
        """Delete or damage some of the span objects."""
        chance = random.Random(f"{self.schedule.seed}/{window.kind}/{window.begin}")
        for name in sorted(self.bucket.objects(BUCKET)):
            is_meant = name.startswith(PREFIX) and name not in self.away and chance.random() < window.chance
            damages = window.kind is Kind.S3_DAMAGED
            if is_meant and self.trouble.active(window.kind) and (damages or not self.holds):
                self.trouble.count(window.kind)
                self.take_away(name, damages=damages)

    def take_away(self, name: str, *, damages: bool = False) -> None:
        """Delete an object, or turn over the bits of one of its bytes."""
        body = self.away[name] = self.bucket.objects(BUCKET)[name].body
        if damages:
            middle = len(body) // 2
            changed = body[:middle] + bytes([body[middle] ^ 0xFF]) + body[middle + 1 :]
            self.bucket.put_object(Bucket=BUCKET, Key=name, Body=changed)
            return
        self.bucket.delete_object(Bucket=BUCKET, Key=name)
        self.told("object lost", name=name)

    def bring_back(self, kind: Kind | None = None) -> None:
        """Bring the old versions of lost objects back: as a kind of trouble ends, unless all has healed and one may be gone for good."""
        if kind is not None and not self.trouble.any_of(frozenset({kind})):
            return
        away, self.away = self.away, {}
        for name, body in away.items():
            self.s3.client.put_object(Bucket=BUCKET, Key=name, Body=body)  # whoever watches it sees it

    def _alter_td(self, kind: Kind, *, begins: bool) -> None:
        usual, changed = TdSettings(), td_faults.SETTINGS[kind]
        altered = {name: value if begins else getattr(usual, name) for name, value in changed.items()}
        self.td.settings = replace(self.td.settings, **altered)

    def _wrong_stamp(self) -> float:
        if chances := self.trouble.strike(Kind.KINESIS_AHEAD):
            return chances.uniform(0, _FAR_AHEAD)
        chances = self.trouble.strike(Kind.KINESIS_STAMPS)
        return chances.uniform(-_STAMP_ERROR, _STAMP_ERROR) if chances else 0.0
