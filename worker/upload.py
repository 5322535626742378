"""Chunks to Treasure Data, side by side, so that no database waits for another.

Each database has a lane. A lane sends one chunk at a time until the database has answered well, then several. A lane
that fails rests between its tries, at no cost to the others, and has its turn after them. All decisions are made here,
in the invocation's own thread; the others only send.

A lane ends in one of three ways. Its chunks are delivered or refused. Or it keeps failing although another database
succeeds or Treasure Data is there: then what is left is parked and the breaker opened. Or Treasure Data is silent
altogether, or the time is up: then what is left stays pending, and is held.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from shared.clock import Clock
from worker.breaker import SLOW, Breakers
from worker.chunk import Chunk
from worker.deadline import LEAST_SEND_SECONDS, Deadline
from worker.executor import Executor
from worker.journal import Journal
from worker.sender import UNSENT, Sender, Upload
from worker.span import Kind, State
from worker.treasure_data import READ_SECONDS, Answer, Verdict

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
KEY_PATIENCE_SECONDS = 3.0
"""For how long a refused key is tried, until it has shown how other databases fare."""
USUAL_SECONDS = 1.0
"""A database that takes no longer than this keeps nobody waiting."""
OTHERS_SECONDS = 600.0
"""Databases that took rows within this time are there to be kept waiting."""
_LEAST_TIMEOUT_SECONDS = 2.0  # of a send towards the end of a lane's patience


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a chunk in this invocation.

    Attributes:
        state: delivered, aside (it must be written to S3 first) or pending.
        kind: of an aside chunk.
        reason: one word.
        sure: no attempt of this invocation can have been taken by Treasure Data.
    """

    state: State
    kind: Kind | None = None
    reason: str = ""
    sure: bool = True

    @classmethod
    def aside(cls, kind: Kind, reason: str, *, sure: bool = True) -> "Outcome":
        """Return the outcome of a chunk that goes to S3."""
        return cls(State.ASIDE, kind, reason, sure=sure)


Split = Callable[[Chunk], Sequence[Upload] | None]
"""Notes in the ledger that a chunk is split and returns its halves; None when it may not be."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds the uploads of one invocation.

    Attributes:
        threads: sends under way at once.
        per_database: of these, for one database.
        park_after: seconds for which a failing database is tried.
        held_at_most: seconds for which rows may be held before they are parked whatever the reason.
    """

    threads: int
    per_database: int
    park_after: float
    held_at_most: float


class _Fate(Enum):
    """What was decided about a lane."""

    PARK = "park"
    HOLD = "hold"


@dataclass(slots=True, eq=False)
class _Lane:
    database: str
    waiting: deque[Upload] = field(default_factory=deque)
    under_way: int = 0
    limit: int = 1
    failures: int = 0
    failing: bool = False
    failing_since: float = 0.0
    queued: bool = False  # it stands in one of the queues
    rests_until: float | None = None
    consulted: bool = False
    key_refused: bool = False
    fate: _Fate | None = None
    reason: str = ""
    ended_at: float | None = None


class Uploader:
    """Sends chunks.

    Args:
        sender: makes single attempts.
        breakers: what is known of databases.
        clock: tells the time and waits.
        chance: returns a random number below 1, for pauses.
        limits: what bounds it.
        journal: told of sends that were repeated.
    """

    def __init__(
        self,
        *,
        sender: Sender,
        breakers: Breakers,
        clock: Clock,
        chance: Callable[[], float],
        limits: Limits,
        journal: Journal,
    ) -> None:
        self.sender = sender
        self.breakers = breakers
        self.clock = clock
        self.chance = chance
        self.limits = limits
        self.journal = journal

    def upload(
        self, uploads: Iterable[Upload], deadline: Deadline, executor: Executor, split: Split
    ) -> dict[str, Outcome]:
        """Send the chunks and return by key what became of each, its halves under their own keys."""
        return _Run(self, deadline, executor, split).run(uploads)


class _Run:
    """One invocation's uploads."""

    def __init__(self, uploader: Uploader, deadline: Deadline, executor: Executor, split: Split) -> None:
        self._u = uploader
        self._deadline = deadline
        self._executor = executor
        self._split = split
        self._lanes: dict[str, _Lane] = {}
        self._ready: deque[_Lane] = deque()
        self._ready_failing: deque[_Lane] = deque()
        self._resting: list[tuple[float, int, _Lane]] = []
        self._rests = 0
        self._under_way = 0
        self._outcomes: dict[str, Outcome] = {}
        self._probe: bool | None = None
        self._key_probe: bool | None = None
        self._began = uploader.clock.now()

    def run(self, uploads: Iterable[Upload]) -> dict[str, Outcome]:
        for upload in uploads:
            lane = self._lanes.get(upload.database)
            if lane is None:
                lane = self._lanes[upload.database] = _Lane(upload.database)
                if self._u.breakers.is_healthy(upload.database):
                    lane.limit = self._u.limits.per_database
            lane.waiting.append(upload)
        for lane in self._lanes.values():
            if self._u.breakers.is_open(lane.database):
                self._decide(lane, _Fate.PARK, "breaker")
            else:
                self._queue(lane)
        while True:
            self._dispatch()
            pause = self._pause()
            if self._under_way:
                finished = self._executor.wait(pause)
                if finished is not None:
                    self._take(*finished)
            elif self._resting or self._ready or self._ready_failing:
                self._u.clock.sleep(pause)
            else:
                self._charge()
                return self._outcomes

    def _queue(self, lane: _Lane) -> None:
        if not lane.queued and self._may_send(lane):
            lane.queued = True
            (self._ready_failing if lane.failing else self._ready).append(lane)

    def _may_send(self, lane: _Lane) -> bool:
        return (
            bool(lane.waiting)
            and lane.fate is None
            and lane.rests_until is None
            and lane.under_way < lane.limit
        )

    def _dispatch(self) -> None:
        if self._deadline.near:
            for lane in self._lanes.values():
                if lane.waiting:
                    self._decide(lane, _Fate.HOLD, "deadline")
            self._ready.clear()
            self._ready_failing.clear()
            self._resting.clear()
            return
        now = self._u.clock.now()
        while self._resting and self._resting[0][0] <= now:
            moment, _, lane = heapq.heappop(self._resting)
            if moment == lane.rests_until:
                lane.rests_until = None
                self._queue(lane)
        while self._under_way < self._u.limits.threads:
            if self._ready:
                lane = self._ready.popleft()
            elif self._ready_failing:
                lane = self._ready_failing.popleft()
            else:
                return
            lane.queued = False
            if self._may_send(lane):
                self._send(lane, lane.waiting.popleft())
                self._queue(lane)

    def _pause(self) -> float:
        """Return the seconds after which a lane has rested or the time is up."""
        if self._deadline.near:
            return 1.0  # what is under way ends by its own time-out
        until = self._deadline.at - LEAST_SEND_SECONDS
        if self._resting:
            until = min(until, self._resting[0][0])
        return max(0.001, until - self._u.clock.now())

    def _send(self, lane: _Lane, upload: Upload) -> None:
        timeout = READ_SECONDS
        if lane.failing:
            ends = lane.failing_since + self._u.limits.park_after
            timeout = min(timeout, max(_LEAST_TIMEOUT_SECONDS, ends - self._u.clock.now()))
        lane.under_way += 1
        self._under_way += 1
        if upload.attempts:
            self._u.journal.count("UploadRetries")
        upload.attempts += 1
        upload.began = self._u.clock.now()
        self._executor.submit(lambda: (lane, upload, self._u.sender.attempt(upload, timeout, self._deadline)))

    def _take(self, lane: _Lane, upload: Upload, answer: Answer) -> None:
        lane.under_way -= 1
        self._under_way -= 1
        match answer.verdict:
            case Verdict.DELIVERED:
                self._well(lane)
                self._outcomes[upload.chunk.key] = Outcome(State.DELIVERED)
            case Verdict.MISMATCH:
                self._set_aside(upload, Kind.IN_DOUBT, answer.reason)
            case Verdict.REFUSED | Verdict.MISSING:
                self._set_aside(upload, Kind.DEAD_LETTER, answer.reason)
            case Verdict.TOO_LARGE:
                self._halve(lane, upload)
            case Verdict.KEY_REFUSED | Verdict.PASSING:
                self._failed(lane, upload, answer)
        if lane.fate is None and lane.waiting and not lane.failing and self._keeps_others_waiting():
            self._u.breakers.open(lane.database, SLOW)
            self._decide(lane, _Fate.PARK, SLOW)
        if lane.fate is not None:
            self._apply(lane)
        self._note_end(lane)
        self._queue(lane)

    def _note_end(self, lane: _Lane) -> None:
        if not lane.waiting and not lane.under_way:
            lane.ended_at = self._u.clock.now()

    def _keeps_others_waiting(self) -> bool:
        """Tell whether most lanes have ended, and those that have not have had the time of a failing one."""
        if self._u.clock.now() - self._began < self._u.limits.park_after:
            return False
        return 2 * sum(lane.ended_at is not None for lane in self._lanes.values()) >= len(self._lanes)

    def _charge(self) -> None:
        """Note which databases others had to wait for; one that does so again and again is sick, though it answers."""
        ends = sorted(lane.ended_at or self._began for lane in self._lanes.values())
        usual = max(self._began + USUAL_SECONDS, ends[(len(ends) - 1) // 2])
        for lane in self._lanes.values():
            late = (lane.ended_at or 0.0) - usual
            if late <= 0 or lane.fate is not None:
                continue
            waited = self._u.breakers.delayed(lane.database, late)
            since = self._u.clock.now() - OTHERS_SECONDS
            if waited >= self._u.limits.park_after and self._u.breakers.others_succeeded(
                lane.database, since
            ):
                self._u.breakers.open(lane.database, SLOW)

    def _well(self, lane: _Lane) -> None:
        self._u.breakers.succeeded(lane.database)
        lane.failing, lane.failures = False, 0
        lane.rests_until, lane.reason = None, ""
        lane.limit = self._u.limits.per_database

    def _set_aside(self, upload: Upload, kind: Kind, reason: str) -> None:
        self._outcomes[upload.chunk.key] = Outcome.aside(kind, reason, sure=upload.sure)

    def _halve(self, lane: _Lane, upload: Upload) -> None:
        if upload.chunk.count < 2:
            self._set_aside(upload, Kind.DEAD_LETTER, "row_too_large")
            return
        halves = self._split(upload.chunk) if upload.sure else None
        if halves is None:  # another attempt may have been taken whole: Treasure Data must be asked first
            self._outcomes[upload.chunk.key] = Outcome.aside(Kind.IN_DOUBT, "too_large", sure=False)
            return
        lane.waiting.extendleft(reversed(halves))

    def _failed(self, lane: _Lane, upload: Upload, answer: Answer) -> None:
        if answer is UNSENT:
            lane.waiting.append(upload)
            return  # the next dispatch ends all
        now = self._u.clock.now()
        since = lane.failing_since = self._u.breakers.failed(lane.database, upload.began)
        if upload.failing_since is None:
            upload.failing_since = upload.began
        # The same chunk once more, so that the others stay free of doubt; then another one: the fault may be the chunk's.
        (lane.waiting.appendleft if upload.attempts % 2 else lane.waiting.append)(upload)
        lane.failing, lane.limit = True, 1
        lane.failures += 1
        lane.reason = answer.reason
        lane.key_refused = answer.verdict is Verdict.KEY_REFUSED
        if lane.key_refused:
            self._u.journal.count("KeyRefused")
        if not lane.consulted:
            lane.consulted = True
            if self._u.breakers.consult(lane.database):
                self._decide(lane, _Fate.PARK, answer.reason)
                return
        rest = self._rest(lane, answer)
        patience = KEY_PATIENCE_SECONDS if lane.key_refused else self._u.limits.park_after
        if now + rest - since < patience:
            self._rest_until(lane, now + rest)
            if now + rest - upload.failing_since >= patience:
                self._give_up(lane, upload)
        elif self._is_alone(lane, since):
            self._u.breakers.open(lane.database, answer.reason)
            self._decide(lane, _Fate.PARK, answer.reason)
        else:
            self._decide(lane, _Fate.HOLD, answer.reason)

    def _give_up(self, lane: _Lane, upload: Upload) -> None:
        """Park one chunk that keeps failing while its database takes others."""
        lane.waiting.remove(upload)
        self._set_aside(upload, Kind.PARKED, lane.reason)

    def _rest(self, lane: _Lane, answer: Answer) -> float:
        longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(lane.failures - 1, 10))
        return max(answer.retry_after, self._u.chance() * longest)

    def _rest_until(self, lane: _Lane, moment: float) -> None:
        if lane.rests_until is None or lane.rests_until < moment:
            self._rests += 1
            lane.rests_until = moment
            heapq.heappush(self._resting, (moment, self._rests, lane))

    def _is_alone(self, lane: _Lane, since: float) -> bool:
        """Tell whether the fault is this database's: another one succeeds, or Treasure Data is there."""
        if not lane.key_refused:
            if self._u.breakers.others_succeeded(lane.database, since):
                return True
            if self._probe is None:
                self._probe = self._u.sender.treasure_data.answers()
            return self._probe
        if self._u.breakers.others_succeeded(lane.database, since - KEY_PATIENCE_SECONDS):
            return True
        if any(other.key_refused for other in self._lanes.values() if other is not lane):
            return False
        if self._key_probe is None:
            self._key_probe = self._u.sender.treasure_data.knows_key()
        return self._key_probe

    def _decide(self, lane: _Lane, fate: _Fate, reason: str) -> None:
        lane.fate = lane.fate or fate
        lane.reason = lane.reason or reason
        self._apply(lane)

    def _apply(self, lane: _Lane) -> None:
        """Let the lane's fate be that of what waits in it."""
        too_old = self._u.clock.now() - self._u.limits.held_at_most
        while lane.waiting:
            upload = lane.waiting.popleft()
            if lane.fate is _Fate.PARK:
                self._set_aside(upload, Kind.PARKED, lane.reason)
            elif upload.oldest < too_old:
                self._set_aside(upload, Kind.PARKED, "held_too_long")
            else:
                self._outcomes[upload.chunk.key] = Outcome(
                    State.PENDING, reason=lane.reason, sure=upload.sure
                )
        self._note_end(lane)
