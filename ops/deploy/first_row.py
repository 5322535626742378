"""The first row of an account: one event sent through the whole stack, until a query sees it in Treasure Data."""

import json
from dataclasses import dataclass
from hashlib import sha256

from ops import screen
from ops.deploy.stack_api import HttpAnswer, StackApi
from ops.deploy.td_client import QueryForbiddenError, TreasureDataQueries
from ops.failure import Failure
from ops.stack import Stack
from ops.state.faults import findings, summary
from ops.state.finding import Finding
from ops.state.stack_state import StateReader
from shared.clock import Clock

TABLE = "sluice_setup"
"""The table of the first row."""

_DAY_SECONDS = 86_400
_POLL_SECONDS = 5.0
_LOOK_SECONDS = 30.0
_REFUSED_SECONDS = 120.0
_PASSING = (
    "unknown_account",
    "disabled_account",
    "invalid_key",
    "revoked_key",
    "internal_error",
    "keys_unavailable",
    "stream_unavailable",
)
"""Refusals that end on their own: the ingest learns of changed accounts and secrets within minutes."""


def _code_of_event(body: bytes) -> str:
    """Return the code with which the API rejected the event; empty without one."""
    try:
        (rejected,) = json.loads(body)["rejected"]
        return str(rejected["code"])
    except (ValueError, KeyError, TypeError):
        return ""


@dataclass(frozen=True, slots=True)
class FirstRow:
    """The first row of one account in one stack. However often it is sent, it counts once."""

    stack: Stack
    api: StackApi
    queries: TreasureDataQueries
    account: str
    database: str
    clock: Clock

    @property
    def event_id(self) -> str:
        """Its id. The ledger's name, and with it the id, differs each time that a stack is created."""
        place = f"{self.stack.outputs['LedgerTable']}/{self.account}/{self.database}"
        return f"sluice-setup-{sha256(place.encode()).hexdigest()[:16]}"

    def is_seen(self) -> bool:
        """Return whether a query sees it.

        Raises:
            QueryForbiddenError: the API key may not query.
            Failure: Treasure Data fails.
        """
        end = int(self.clock.now()) + _DAY_SECONDS
        return bool(self.queries.counts(TABLE, self.event_id, 0, end))

    def send(self, key: str) -> None:
        """Send it with a write key of the account, again and again while the refusal is of a kind that ends on its own.

        Raises:
            Failure: it is refused for good, or for minutes.
        """
        event = {"table": TABLE, "event_id": self.event_id}
        body = json.dumps({"batch_id": self.event_id, "events": [event]})
        until = self.clock.now() + _REFUSED_SECONDS
        while (answer := self.api.request("POST", "/v1/events", body, {"x-write-key": key})).status != 200:
            if answer.code not in _PASSING or self.clock.now() > until:
                raise Failure(self._refusal(answer))
            self.clock.sleep(_POLL_SECONDS)

    def _refusal(self, answer: HttpAnswer) -> str:
        code = answer.code or _code_of_event(answer.body)
        said = f"the API answered {answer.status} {code}".rstrip()
        if code in ("unplanned_table", "unplanned_column", "missing_column"):
            return (
                f"{said}: the tracking plan of {self.account} rejects the table {TABLE}. Allow it, or set the plan's mode to "
                "observe (docs/tracking-plan.md)"
            )
        return f"{said} to the first event: `sluice doctor {self.stack.option}` shows why"

    def wait(self, seconds: float) -> float:
        """Wait some seconds until a query sees it; return how long that took. The stack's state is printed unless it is healthy.

        Raises:
            QueryForbiddenError: the API key may not query.
            Failure: it is not seen in time; the message has the cause and the next command.
        """
        began = look_at = self.clock.now()
        while not self._is_seen_now():
            passed = (now := self.clock.now()) - began
            if passed >= seconds or now >= look_at:
                verdict = self._verdict()
                if passed >= seconds:
                    raise Failure(self._unseen(seconds, verdict))
                if not verdict.is_sound:
                    screen.note(verdict.verdict)
                look_at = now + _LOOK_SECONDS
            self.clock.sleep(min(_POLL_SECONDS, max(0.1, seconds - passed)))
        return self.clock.now() - began

    def _is_seen_now(self) -> bool:
        """Return whether a query sees it; False while Treasure Data fails."""
        try:
            return self.is_seen()
        except QueryForbiddenError:
            raise
        except Failure:
            return False

    def _verdict(self) -> Finding:
        state = StateReader(self.stack).state()
        return summary(state, findings(state, self.stack.option))[0]

    def _unseen(self, seconds: float, verdict: Finding) -> str:
        cause = "The stack is healthy." if verdict.is_sound else verdict.verdict
        option = self.stack.option
        return (
            f"the API accepted the first event, but no query sees its row after {screen.lasting(seconds)}. {cause} "
            f"`sluice status {option}` shows more; `sluice setup {option}` continues to wait"
        )
