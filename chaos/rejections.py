"""Checks that exactly the events that stray from a quarantining plan are rejected, kept complete and once, and counted."""

from collections import Counter
from collections.abc import Iterator

from chaos.pipeline import Pipeline
from chaos.plans import Copy
from chaos.traffic import Sent
from chaos.trouble import Kind
from worker.plan import MAX_KEPT_BYTES, MAX_KEPT_EVENTS

_NO_TABLE = "missing_table"
_SERVICES = ("S3_", "KINESIS_", "SQS_")
_UNRECORDED = {
    *(kind for kind in Kind if kind.name.startswith(_SERVICES) and kind is not Kind.S3_POLICY),
    *(Kind.ACCESS_DENIED, Kind.KILL, Kind.TIMEOUT, Kind.OVERRUN, Kind.PAUSE, Kind.STANDSTILL, Kind.RECREATE),
}
"""Trouble that may leave a rejected event unrecorded. Recording them is best effort."""
_OTHER_POLICY = {Kind.S3_POLICY, Kind.PLAN, Kind.DISABLE, Kind.SKEW}
"""Trouble that may make sandboxes judge by different policies."""

_LIGHT = MAX_KEPT_BYTES // MAX_KEPT_EVENTS
"""Events of at most this many bytes are kept. Of heavier ones, a request and a span keep those that fit, and count the rest."""
Place = tuple[str, str, str]
"""Account, table and code."""


class Rejections:
    """Checks what a finished pipeline did with rejected events."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._quarantined = pipeline.schedule.quarantined
        self._copies = Counter((copy.number, copy.code) for copy in pipeline.copies)
        strikes = pipeline.world.trouble.strikes.keys()
        self._is_recorded = not strikes & _UNRECORDED
        self._is_judged_again = bool(strikes & _OTHER_POLICY)  # a copy that now has rows is another request
        # a copy is recorded, too, if the index that would show the first one is gone
        self._is_recorded_again = self._is_judged_again or Kind.S3_GONE in strikes
        self._is_certain = self._is_recorded and not self._is_judged_again

    def misjudged(self) -> Iterator[int]:
        """Yield events that fit but were rejected, strays rejected for another reason, and strays that were accepted."""
        told = self._pipeline.told
        for number, code in told:
            sent = self._pipeline.sent[number]
            if code != self._stray(sent, number) and (code != _NO_TABLE or not sent.has_rejected):
                yield number
        for number, sent in self._pipeline.sent.items() if self._is_certain else ():
            stray = self._stray(sent, number)
            if stray and (number, stray) not in told and number in self._pipeline.accepted:
                yield number

    def miscounted(self) -> Iterator[str]:
        """Yield copies that differ from what was sent or exist twice, and counts that contradict the responses."""
        for copy in self._pipeline.copies:
            sent = self._pipeline.sent[copy.number]
            if not self._is_complete(copy, sent):
                yield f"rejected event {copy.number} is kept as {copy}"
            times = self._copies[copy.number, copy.code]
            if times > 1 and sent.dialect != "mobile" and not self._is_recorded_again:
                yield f"rejected event {copy.number} is kept {times} times"
        counted, (least, most) = self._pipeline.audit.rejections(), self._told()
        copied = Counter((copy.account, copy.table, copy.code) for copy in self._pipeline.copies)
        for place in copied | least | counted:
            if copied[place] > counted[place]:
                yield f"{place}: {copied[place]} copies of {counted[place]} rejected events"
            if self._is_certain and not least[place] <= counted[place] <= most[place]:
                yield f"{place}: {counted[place]} rejected events are counted, and responses report {least[place]}"

    def lost(self) -> Iterator[int]:
        """Yield rejected events without a copy, although nothing prevented keeping one."""
        pipeline = self._pipeline
        if self._is_certain and len(pipeline.told) <= MAX_KEPT_EVENTS:
            missing = (number for number, code in pipeline.told if (number, code) not in self._copies)
            yield from (number for number in missing if pipeline.sent[number].weight <= _LIGHT)
        if self._is_recorded and pipeline.contradicted:
            kept = {number for number, _ in self._copies}
            kept |= {int(row["n"]) for taken in pipeline.world.td.imports() for row in taken.rows}
            yield from pipeline.contradicted - kept

    def _stray(self, sent: Sent, number: int) -> str | None:
        return sent.stray(number) if sent.account in self._quarantined else None

    def _is_complete(self, copy: Copy, sent: Sent) -> bool:
        original = {"rejected": copy.number} if copy.code == _NO_TABLE else sent.original(copy.number)
        return bool(copy.event == original and copy.message and copy.account == sent.account)

    def _told(self) -> tuple[Counter[Place], Counter[Place]]:
        """Return the minimum and maximum numbers of rejections. A mobile SDK's retry has no batch id, so it may count again."""
        least, most = Counter[Place](), Counter[Place]()
        for (number, code), answers in self._pipeline.told.items():
            sent = self._pipeline.sent[number]
            place = (sent.account, "" if code == _NO_TABLE else sent.table_of(number), code)
            least[place] += 1
            most[place] += answers if sent.dialect == "mobile" else 1
        return least, most
