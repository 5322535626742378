"""Restores what a certification breaks: after each step, after Ctrl-C and, after a crash, in the next run.

A record on disk is written before anything is broken, and deleted once it is restored. It never contains a secret, only where to
find its value.
"""

import json
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any, NamedTuple

from ops import screen
from ops.failure import FORESEEN, Failure, explained
from shared.clock import Clock

_PAUSES = (1.0, 5.0, 15.0, 30.0, 0.0)


@dataclass(frozen=True, slots=True)
class Broken:
    """Something that was broken on purpose: the kind of its repair, and the repair's parameters."""

    kind: str
    how: Mapping[str, str]


class Repair(NamedTuple):
    """Restores things of one kind. `restore` may be repeated, and finishes a partial restore; `by_hand` returns a command."""

    restore: Callable[[Mapping[str, str]], None]
    by_hand: Callable[[Mapping[str, str]], str]


@dataclass
class Repairs:
    """The things that are broken at present, as a file records them. Repairs are by kind; `option` names the stack on a command line."""

    file: Path
    repairs: Mapping[str, Repair]
    clock: Clock
    option: str

    def __post_init__(self) -> None:
        self._broken = _read(self.file)

    @property
    def broken(self) -> Sequence[Broken]:
        """The things that are broken, in the order in which they were broken."""
        return tuple(self._broken)

    @contextmanager
    def breaking(self, kind: str, **how: str) -> Iterator[None]:
        """Restore a thing when the `with` block ends, however it ends. Break the thing inside the block.

        Raises:
            Failure: it could not be restored. The message has a command that does it.
        """
        thing = Broken(kind, how)
        self._broken.append(thing)
        self._write()
        try:
            yield
        finally:
            with self._uninterrupted():
                self._restore(thing)

    def restore_all(self) -> None:
        """Restore everything, in reverse order.

        Raises:
            Failure: something could not be restored. The message has a command that does it.
        """
        failures = []
        with self._uninterrupted():
            for thing in reversed(self.broken):
                try:
                    self._restore(thing)
                except Failure as failure:
                    failures.append(failure.message)
        if failures:
            raise Failure(" ".join(failures))

    def _uninterrupted(self) -> AbstractContextManager[None]:
        return handling_signals(lambda: screen.note("still restoring what was broken, please wait"))

    def _restore(self, thing: Broken) -> None:
        repair = self.repairs[thing.kind]
        screen.note(f"restoring: {thing.kind}")
        cause = ""
        for pause in _PAUSES:
            try:
                repair.restore(thing.how)
            except (Failure, *FORESEEN) as error:
                cause = explained(error).message
                self.clock.sleep(pause)
            else:
                self._broken.remove(thing)
                self._write()
                return
        raise Failure(
            f"NOT RESTORED: {thing.kind} ({cause}). Restore it manually: `{repair.by_hand(thing.how)}`, or run "
            f"`sluice certify {self.option} --restore`."
        )

    def _write(self) -> None:
        if not self._broken:
            self.file.unlink(missing_ok=True)
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.file.with_suffix(".new")
        scratch.write_text(json.dumps([asdict(thing) for thing in self._broken]))
        scratch.replace(self.file)


def _read(file: Path) -> list[Broken]:
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        return []
    return [Broken(one["kind"], one["how"]) for one in found]


@contextmanager
def handling_signals(handle: Callable[[], object]) -> Iterator[None]:
    """Call a function at Ctrl-C, SIGTERM and SIGHUP, for the duration of the block."""
    before: dict[signal.Signals, Any] = {}
    if current_thread() is main_thread():  # other threads receive no signals
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            before[number] = signal.signal(number, lambda *_: handle())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
