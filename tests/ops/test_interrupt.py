"""Ctrl-C at a moment when Python discards the exception."""

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
    """Make SIGINT raise, even in a process that a shell started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class _Dropping:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def _drop_and_wait() -> None:
    _Dropping()
    threading.Event().wait(_PATIENCE_SECONDS)


def test_an_interrupt_in_a_destructor_is_raised_again() -> None:
    """The command may be waiting by then."""
    with pytest.raises(KeyboardInterrupt), interruptible():
        _drop_and_wait()


def test_an_interrupt_just_before_a_wait_ends_the_wait() -> None:
    """The operating system wakes nobody then; here because another thread has received the signal."""

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


def test_an_interrupt_with_another_handler_is_not_repeated() -> None:
    """A certification, for example, handles Ctrl-C itself while it restores what it broke."""
    heard = []
    with interruptible():
        ours = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
        signal.raise_signal(signal.SIGINT)
        select.select([], [], [], 0.2)
        signal.signal(signal.SIGINT, ours)

    assert [signal.SIGINT] == heard


def test_a_signal_that_was_not_named_interrupts_nothing() -> None:
    """Its own handler runs as usual."""
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    with interruptible():
        signal.raise_signal(signal.SIGUSR1)
        select.select([], [], [], 0.2)
    signal.signal(signal.SIGUSR1, before)

    assert [signal.SIGUSR1] == heard


def test_a_signal_interrupts_only_the_inner_of_two_blocks() -> None:
    """The outer block continues, and gets its own handlers back."""
    with interruptible():
        outer = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), interruptible(signal.SIGTERM):
            signal.raise_signal(signal.SIGTERM)

        assert outer == signal.getsignal(signal.SIGINT)
    assert signal.SIG_DFL == signal.getsignal(signal.SIGTERM)


def test_ctrl_c_interrupts_a_background_command_if_another_signal_does() -> None:
    """A shell starts such a command with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with pytest.raises(KeyboardInterrupt), interruptible(signal.SIGTERM):
        signal.raise_signal(signal.SIGINT)

    assert signal.SIG_IGN == signal.getsignal(signal.SIGINT)


def test_other_discarded_exceptions_are_still_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The previous hook reports them, and is restored afterwards."""
    reported = []
    monkeypatch.setattr("sys.unraisablehook", lambda dropped: reported.append(dropped.exc_type))

    class Failing:
        def __del__(self) -> None:
            raise ValueError

    with interruptible():
        Failing()
    Failing()

    assert [ValueError, ValueError] == reported


def test_errors_of_a_half_constructed_object_are_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """If an interrupt cuts a constructor short, the destructor often fails, and its error helps nobody."""
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
