"""What a check found, as `sluice doctor` and `sluice preflight` say it."""

from dataclasses import dataclass
from functools import partial

from ops import screen

_MARKS = {"ok": "ok     ", "fault": "FAULT  ", "warning": "note   ", "unknown": "?      "}
_STYLES = {"fault": "bold red", "unknown": "yellow"}


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One thing that was looked at.

    Attributes:
        what: it is.
        said: what was found.
        advice: what to do about it.
        state: `ok`; `fault`, if something does not work, or would fail; `warning`; `unknown`, if it could not be looked at, or does
            not apply.
    """

    what: str
    said: str = ""
    advice: str = ""
    state: str = "ok"

    @property
    def line(self) -> str:
        """All of it in one line."""
        said = " ".join(filter(None, (self.said, self.advice)))
        return f"{_MARKS[self.state]}{self.what}{f': {said}' if said else ''}"

    def show(self) -> None:
        """Print the line."""
        screen.say(self.line, _STYLES.get(self.state, ""))


ok = CheckResult
fault = partial(CheckResult, state="fault")
warning = partial(CheckResult, state="warning")
unknown = partial(CheckResult, state="unknown")
