"""The dialect of Treasure Data's mobile SDKs before version 1: events for several tables in one body."""

from typing import Any

from ingest import document, td_client
from ingest.batch import Batch
from ingest.intake import MAX_TABLES, Intake, check_count
from ingest.records_api import receipts
from ingest.refusal import Refused
from ingest.request import Request
from ingest.response import Response, json_response

_OWN_MEMBERS = ("keen", "#SSUT", "#UUID")


def answer(request: Request, intake: Intake) -> Response:
    """Accept the events and answer with a receipt for each, by database and table as sent.

    Raises:
        Refused: nothing was accepted. If only later tables fail, their receipts say so.
    """
    sender = td_client.sender(request, intake)
    body = document.read(request, sender)
    value = body.value
    if not isinstance(value, dict) or not all(isinstance(events, list) for events in value.values()):
        raise Refused("not_events")
    check_count(sum(map(len, value.values())))
    addresses = {name: name.partition(".") for name in value}
    for database, _, _ in addresses.values():
        td_client.check_database(sender, database)
    visitor = intake.privacy.visitor(request)

    def rewrite(event: Any) -> Any:
        return td_client.fill_placeholders(_normalize(event), visitor)

    answers: dict[str, Any] = {}
    later = [name for name in addresses if value[name]][MAX_TABLES:]  # the SDK sends these again
    for name, (_, _, table) in addresses.items():
        if not value[name] or name in later:
            answers[name] = []
            continue
        events = value[name]
        batch = Batch(
            events, table, single_table=True, sent=events, rewrite=rewrite, originals=body.items(name)
        )
        try:
            outcome = intake.accept(request, sender, batch, visitor)
        except Refused as refused:
            if not any(answers.values()):
                raise
            answers[name] = _later(refused.code, len(events))
        else:
            answers[name] = receipts(len(events), outcome)
    answers |= {name: _later("too_many_tables", len(value[name])) for name in later}
    return json_response(200, answers)


def _later(code: str, count: int) -> list[dict[str, Any]]:
    """Return receipts that make the SDK send the events again."""
    error = {"name": "ServiceUnavailableError", "description": code}
    return [{"success": False, "error": error}] * count


def _normalize(event: Any) -> Any:
    """Rename the SDK's own members to the names that later SDKs use.

    `#SSUT` asks for the server's time instead of the SDK's.
    """
    if not isinstance(event, dict) or event.keys().isdisjoint(_OWN_MEMBERS):
        return event
    plain = {name: value for name, value in event.items() if name not in _OWN_MEMBERS}
    if "#UUID" in event:
        plain.setdefault("uuid", event["#UUID"])
    match event:
        case {"#SSUT": _}:
            plain.pop("time", None)
        case {"keen": {"timestamp": stamp}}:
            plain.setdefault("time", stamp)
    return plain
