"""What the clients of Treasure Data have in common: where their key stands, and what they leave to the server.

Our write key stands in the place of theirs, and the account's name in the place of the database's.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ingest import browser
from ingest.intake import Intake
from ingest.privacy import Visitor
from ingest.refusal import Refused
from ingest.request import Request
from shared.write_key import WriteKey

KEY_PARAMETERS = ("api_key", "td_write_key")


def verify(request: Request, intake: Intake, database: str) -> WriteKey:
    """Return what the request's key says, which must be of the account that the path calls its database.

    Of several keys the first counts: `Authorization: TD1`, `X-TD-Write-Key`, `api_key`, `td_write_key`.

    Raises:
        Refused: `wrong_database`, and what `Intake.verify` raises.
    """
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    sent = credentials.strip() if scheme.lower() == "td1" else ""
    sent = sent or request.headers.get("x-td-write-key", "")
    for name in KEY_PARAMETERS:
        sent = sent or request.parameter(name) or ""
    key = intake.verify(sent)
    if key.account != database:
        raise Refused("wrong_database")
    return key


def fill_placeholders(event: Any, visitor: Visitor) -> Any:
    """Return the event with each placeholder, a value that is its own member's name, as the server knows it.

    What the server does not know becomes null.
    """
    if not isinstance(event, dict):
        return event
    wanted = [name for name in PLACEHOLDERS if event.get(name) == name]
    return event | {name: PLACEHOLDERS[name](visitor) or None for name in wanted} if wanted else event


PLACEHOLDERS: Mapping[str, Callable[[Visitor], str | None]] = {
    "td_ip": lambda visitor: visitor.ip,
    "td_ua": lambda visitor: visitor.user_agent,
    "td_user_agent": lambda visitor: visitor.user_agent,
    "td_global_id": lambda visitor: visitor.global_id,
    "td_browser": lambda visitor: browser.read(visitor.user_agent).name,
    "td_browser_version": lambda visitor: browser.read(visitor.user_agent).version,
    "td_os": lambda visitor: browser.read(visitor.user_agent).system,
    "td_os_version": lambda visitor: browser.read(visitor.user_agent).system_version,
}
"""What the server puts in the place of a value that is its own name."""
