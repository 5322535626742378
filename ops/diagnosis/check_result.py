"""Results of checks, as `sluice doctor` and `sluice preflight` print them."""

from dataclasses import dataclass
from functools import partial

from ops import screen

_MARKS = {"ok": "ok     ", "fault": "FAULT  ", "warning": "note   ", "unknown": "?      "}
_STYLES = {"fault": "bold red", "unknown": "yellow"}


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check.

    Attributes:
        what: what was checked.
        said: what was found.
        advice: what to do about it.
        state: `ok`, `fault` (something does not work, or would fail), `warning`, or `unknown` (it could not be checked, or does not
            apply).
    """

    what: str
    said: str = ""
    advice: str = ""
    state: str = "ok"

    @property
    def line(self) -> str:
        """The result as one line."""
        said = " ".join(filter(None, (self.said, self.advice)))
        return f"{_MARKS[self.state]}{self.what}{f': {said}' if said else ''}"

    def show(self) -> None:
        """Print the line."""
        screen.say(self.line, _STYLES.get(self.state, ""))


ok = CheckResult
fault = partial(CheckResult, state="fault")
warning = partial(CheckResult, state="warning")
unknown = partial(CheckResult, state="unknown")
