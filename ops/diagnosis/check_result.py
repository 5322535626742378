"""Results of checks, as `sluice doctor` and `sluice preflight` print them."""

from dataclasses import dataclass
from functools import partial

from ops import screen
from ops.help_page import TROUBLESHOOTING, with_page

_MARKS = {"ok": "ok     ", "fault": "FAULT  ", "warning": "note   ", "unknown": "?      "}
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
    "id memory": "docs/operations.md#treasure-datas-undocumented-limits",
    "import permission": "docs/deploying.md#treasure-data",
    "names": "docs/deploying.md#stages",
    "network": "docs/deploying.md#network",
    "organization": "docs/deploying.md#public-endpoints",
    "parameters": "docs/deploying.md#parameters",
    "query delay": "docs/operations.md#treasure-datas-undocumented-limits",
    "quotas": "docs/deploying.md#quotas",
    "record": "docs/deploying.md#dns",
    "region": "docs/deploying.md#parameters",
    "shards": "docs/deploying.md#quotas",
    "stack": "docs/deploying.md#stages",
    "stack name": "docs/deploying.md#stages",
}
"""The page that helps with each check; docs/operations.md helps with the others."""
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
        if self.state == "fault":
            said = with_page(said, _PAGES.get(self.what, TROUBLESHOOTING))
        return f"{_MARKS[self.state]}{self.what}{f': {said}' if said else ''}"

    def show(self) -> None:
        """Print the line."""
        screen.say(self.line, _STYLES.get(self.state, ""))


ok = CheckResult
fault = partial(CheckResult, state="fault")
warning = partial(CheckResult, state="warning")
unknown = partial(CheckResult, state="unknown")
