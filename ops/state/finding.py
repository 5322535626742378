"""Findings about a stack: what is right or wrong, and what to do; as `status`, `doctor`, `setup` and `preflight` print them."""

from dataclasses import dataclass
from functools import partial

from ops import screen
from ops.help_page import TROUBLESHOOTING, with_page

NO_ACTION = "No action needed: delivery resumes on its own."

_STATES = {
    "fault": ("FAULT", "ATTENTION", "bold red"),
    "holding": ("hold", "HOLDING", "bold yellow"),
    "waiting": ("wait", "WAITING", "bold yellow"),
    "warning": ("note", "Note", ""),
    "unknown": ("?", "Note", "yellow"),
    "ok": ("ok", "HEALTHY", ""),
}
"""How each state, the worst first, is called in a list of checks and in a first line, and the style of both."""
_PAGES = {
    "API key": "docs/deploying.md#treasure-data",
    "RedisUrlSecretArn": "docs/deploying.md#existing-secrets",
    "TdApiKeySecretArn": "docs/deploying.md#existing-secrets",
    "Treasure Data": "docs/deploying.md#treasure-data",
    "alarm topic": "docs/deploying.md#alarms",
    "concurrency": "docs/deploying.md#quotas",
    "custom domain": "docs/deploying.md#custom-domain",
    "delegation": "docs/deploying.md#dns",
    "hosted zone": "docs/deploying.md#dns",
    "import permission": "docs/deploying.md#treasure-data",
    "names": "docs/deploying.md#stages",
    "network": "docs/deploying.md#network",
    "organization": "docs/deploying.md#public-endpoints",
    "parameters": "docs/deploying.md#parameters",
    "quotas": "docs/deploying.md#quotas",
    "record": "docs/deploying.md#dns",
    "region": "docs/deploying.md#parameters",
    "shards": "docs/deploying.md#quotas",
    "stack": "docs/deploying.md#stages",
    "stack name": "docs/deploying.md#stages",
}
"""The page that helps with each check; docs/operations.md helps with the others."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding.

    Attributes:
        what: what was looked at.
        said: what was found.
        advice: what to do about it.
        state: `ok`; `fault` (somebody has to act); `holding` or `waiting` (records or rows wait for something that passes on its own);
            `warning`; `unknown` (it could not be checked, or does not apply).
        fault: the name of what is wrong, in one word; empty if nothing is.
        about: what of several things it is about: a database, a reason.
        seconds: how long it has lasted; None if unknown.
    """

    what: str
    said: str = ""
    advice: str = ""
    state: str = "ok"
    fault: str = ""
    about: str = ""
    seconds: float | None = None

    @property
    def line(self) -> str:
        """The finding as a line of a list of checks."""
        said = self._said
        if self.state == "fault":
            said = with_page(said, _PAGES.get(self.what, TROUBLESHOOTING))
        return f"{_STATES[self.state][0]:7}{self.what}{f': {said}' if said else ''}"

    @property
    def verdict(self) -> str:
        """The finding as the first line of `sluice status`, or as one of those below it."""
        lasting = "" if self.seconds is None else f" for {screen.lasting(self.seconds)}"
        said = f"{self._said.rstrip('.') or self.what}."
        if self.state in ("fault", "holding", "waiting") and "No action needed" not in said:
            said = with_page(said, TROUBLESHOOTING)
        return f"{_STATES[self.state][1]}{lasting}: {said}"

    @property
    def _said(self) -> str:
        if self.said and self.advice and not self.said.endswith("."):
            return f"{self.said}. {self.advice}"
        return " ".join(filter(None, (self.said, self.advice)))

    @property
    def is_sound(self) -> bool:
        """Whether nothing waits for anything, as far as it goes."""
        return self.state not in ("fault", "holding", "waiting")

    @property
    def health(self) -> str:
        """The state in one word: `attention`, `holding`, `waiting` or `healthy`."""
        return "healthy" if self.is_sound else _STATES[self.state][1].lower()

    @property
    def rank(self) -> int:
        """Sorts the worst first."""
        return list(_STATES).index(self.state)

    @property
    def style(self) -> str:
        """The style of its line."""
        return _STATES[self.state][2]

    def show(self) -> None:
        """Print the line of a list of checks."""
        screen.say(self.line, self.style)


ok = Finding
fault = partial(Finding, state="fault")
warning = partial(Finding, state="warning")
unknown = partial(Finding, state="unknown")
