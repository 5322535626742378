"""What a certification breaks, and how it is restored: after each step, after Ctrl-C, and after a crash by the next run.

A thing is written to disk before it is broken, and forgotten when it is whole again. No secret is written, only where its value is.
"""

import json
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from ops.failure import FORESEEN, Failure, explained
from shared.clock import Clock

_PAUSES = (1.0, 5.0, 15.0, 30.0, 0.0)


@dataclass(frozen=True, slots=True)
class Broken:
    """Something that is broken on purpose.

    Attributes:
        kind: names the repair.
        how: what the repair needs to know.
    """

    kind: str
    how: Mapping[str, str]


class Repair(NamedTuple):
    """Makes things of one kind whole again.

    Attributes:
        restore: makes one whole, which may be whole already, or in part.
        by_hand: returns the command that does the same.
    """

    restore: Callable[[Mapping[str, str]], None]
    by_hand: Callable[[Mapping[str, str]], str]


class Repairs:
    """Everything that is broken now.

    Args:
        file: where it is kept.
        repairs: by kind.
        clock: waits between attempts.
        say: is told what is being restored.
    """

    def __init__(
        self, file: Path, repairs: Mapping[str, Repair], clock: Clock, say: Callable[[str], None]
    ) -> None:
        self._file = file
        self._repairs = repairs
        self._clock = clock
        self._say = say
        self._broken = _read(file)

    @property
    def broken(self) -> Sequence[Broken]:
        """What is broken now, in the order in which it was broken."""
        return tuple(self._broken)

    @contextmanager
    def breaking(self, kind: str, **how: str) -> Iterator[None]:
        """Restore a thing at the end of the `with`, however that ends. Break it inside.

        Raises:
            Failure: it could not be restored; the message has the command that does it.
        """
        thing = Broken(kind, how)
        self._broken.append(thing)
        self._write()
        try:
            yield
        finally:
            with _uninterrupted(self._say):
                self._restore(thing)

    def restore_all(self) -> None:
        """Restore everything, the last first.

        Raises:
            Failure: something could not be restored; the message has the command that does it.
        """
        failures = []
        with _uninterrupted(self._say):
            for thing in reversed(self.broken):
                try:
                    self._restore(thing)
                except Failure as failure:
                    failures.append(failure.message)
        if failures:
            raise Failure(" ".join(failures))

    def _restore(self, thing: Broken) -> None:
        repair = self._repairs[thing.kind]
        self._say(f"restoring: {thing.kind}")
        cause = ""
        for pause in _PAUSES:
            try:
                repair.restore(thing.how)
            except (Failure, *FORESEEN) as error:
                cause = explained(error).message
                self._clock.sleep(pause)
            else:
                self._broken.remove(thing)
                self._write()
                return
        raise Failure(
            f"NOT RESTORED: {thing.kind} ({cause}). Restore it by hand: `{repair.by_hand(thing.how)}`, or run "
            "`sluice certify --restore`."
        )

    def _write(self) -> None:
        if not self._broken:
            self._file.unlink(missing_ok=True)
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        scratch = self._file.with_suffix(".new")
        scratch.write_text(json.dumps([asdict(thing) for thing in self._broken]))
        scratch.replace(self._file)


def _read(file: Path) -> list[Broken]:
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        return []
    return [Broken(one["kind"], one["how"]) for one in found]


@contextmanager
def _uninterrupted(say: Callable[[str], None]) -> Iterator[None]:
    """Let no Ctrl-C stop what is being restored."""

    def wait(_number: int, _frame: FrameType | None) -> None:
        say("restoring what was broken: this must end first")

    before: dict[signal.Signals, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            before[number] = signal.signal(number, wait)
    except ValueError:  # not the main thread, which gets no signals
        pass
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
