"""Ctrl-C at a moment at which Python drops what it raises."""

import select
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from ops.interrupt import interruptible

_PATIENCE_SECONDS = 20.0


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """Let SIGINT raise, also in a process that a shell has started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class _Dropping:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def _drop_and_wait() -> None:
    _Dropping()
    threading.Event().wait(_PATIENCE_SECONDS)


def test_an_interrupt_that_is_raised_in_a_destructor_is_raised_again() -> None:
    """Even if the command waits by then."""
    with pytest.raises(KeyboardInterrupt), interruptible():
        _drop_and_wait()


def test_an_interrupt_that_comes_just_before_the_command_begins_to_wait_ends_the_wait() -> None:
    """The operating system wakes nobody then; here because another thread has taken the signal."""

    def interrupt() -> None:
        select.select([], [], [], 0.2)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    def start_and_wait() -> None:
        threading.Thread(target=interrupt).start()
        select.select([], [], [], _PATIENCE_SECONDS)

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), interruptible():
        start_and_wait()

    assert time.monotonic() - began < _PATIENCE_SECONDS


def test_an_interrupt_while_something_else_handles_it_is_not_repeated() -> None:
    """Such as while a certification restores what it has broken."""
    heard = []
    with interruptible():
        ours = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
        signal.raise_signal(signal.SIGINT)
        select.select([], [], [], 0.2)
        signal.signal(signal.SIGINT, ours)

    assert [signal.SIGINT] == heard


def test_another_handled_signal_interrupts_nothing() -> None:
    """Only those that were named do."""
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    with interruptible():
        signal.raise_signal(signal.SIGUSR1)
        select.select([], [], [], 0.2)
    signal.signal(signal.SIGUSR1, before)

    assert [signal.SIGUSR1] == heard


def test_another_signal_interrupts_a_block_within_a_block_and_then_nothing_else() -> None:
    """The block within has heard it, so the outer one goes on, and has its own handlers back."""
    with interruptible():
        outer = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), interruptible(signal.SIGTERM):
            signal.raise_signal(signal.SIGTERM)

        assert outer == signal.getsignal(signal.SIGINT)
    assert signal.SIG_DFL == signal.getsignal(signal.SIGTERM)


def test_with_another_signal_ctrl_c_interrupts_a_command_in_the_background_too() -> None:
    """A shell lets it be ignored there."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with pytest.raises(KeyboardInterrupt), interruptible(signal.SIGTERM):
        signal.raise_signal(signal.SIGINT)

    assert signal.SIG_IGN == signal.getsignal(signal.SIGINT)


def test_what_else_is_dropped_is_still_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the hook that stood there before, which stands there again afterwards."""
    reported = []
    monkeypatch.setattr("sys.unraisablehook", lambda dropped: reported.append(dropped.exc_type))

    class Failing:
        def __del__(self) -> None:
            raise ValueError

    with interruptible():
        Failing()
    Failing()

    assert [ValueError, ValueError] == reported


def test_what_was_interrupted_half_made_ends_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """An object whose making was cut short often cannot be destroyed without an error, which tells nobody anything."""
    reported = []
    monkeypatch.setattr("sys.unraisablehook", lambda dropped: reported.append(dropped.exc_type))

    class HalfMade:
        def __init__(self) -> None:
            raise KeyboardInterrupt

        def __del__(self) -> None:
            raise AttributeError

    def make() -> None:
        made = HalfMade()
        del made

    with pytest.raises(KeyboardInterrupt), interruptible():
        make()

    assert [] == reported
