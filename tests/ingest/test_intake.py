"""The intake checks requests of every dialect in the same way."""

from collections.abc import Sequence
from typing import Any

import pytest

from ingest.batch import Batch
from ingest.budget import Budgets
from ingest.intake import MAX_EVENTS, EventOutcome, Intake
from ingest.privacy import Privacy
from ingest.rate import Rate
from ingest.refusal import Refused
from ingest.request import Request
from shared.settings import IngestSettings
from tests.support.ingest import BUCKET, KEY, NOTICES_URL, QUEUE_URL, STREAM, Site, http_event


def accept(site: Site, events: Sequence[Any], rewritten: list[Any]) -> EventOutcome:
    """Pass events to an intake as a dialect without its own checks does; `rewritten` collects those it rewrites."""
    intake = Intake(
        site.keyring,
        site.handler.policies,
        site.stream,
        Privacy(
            IngestSettings(STREAM, QUEUE_URL, "keys", BUCKET, NOTICES_URL, "counters", ("*",)), lambda: None
        ),
        rate=Rate(1000, site.clock),
        budgets=Budgets(lambda: site.dynamodb, "counters", site.clock, site.telemetry),
        redirect_hosts=(),
        clock=site.clock,
        entropy=lambda size: b"\0" * size,
        telemetry=site.telemetry,
    )
    request = Request.from_event(http_event("POST", "/new/dialect"))

    def rewrite(event: Any) -> Any:
        rewritten.append(event)
        return {"sent": event}

    batch = Batch(events, "pageviews", rewrite=rewrite)
    return intake.accept(request, intake.verify(KEY), batch, intake.privacy.visitor(request))


@pytest.mark.parametrize(("count", "code"), [(0, "no_events"), (MAX_EVENTS + 1, "too_many_events")])
def test_the_number_of_events_is_limited_before_any_is_rewritten(count: int, code: str) -> None:
    """The request is rejected whatever its dialect checks, and at no cost per event."""
    site, rewritten = Site(), list[Any]()

    with pytest.raises(Refused) as refused:
        accept(site, [{}] * count, rewritten)

    assert (code, [], []) == (refused.value.code, rewritten, site.kinesis.calls)
