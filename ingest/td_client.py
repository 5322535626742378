"""What all Treasure Data clients share: where they put their API key, and the placeholders that the server fills in.

These clients send a Sluice write key in place of the API key, and the account in place of the database.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ingest.intake import Admitted, Intake
from ingest.privacy import Visitor
from ingest.refusal import Refused
from ingest.request import Request
from ingest.user_agent import browser

KEY_PARAMETERS = ("api_key", "td_write_key")


def verify(request: Request, intake: Intake, database: str) -> Admitted:
    """Verify the request's write key and that its account is the path's database.

    Raises:
        Refused: `wrong_database`, or as `Intake.verify`.
    """
    found = sender(request, intake)
    check_database(found, database)
    return found


def sender(request: Request, intake: Intake) -> Admitted:
    """Verify the request's write key: the first of `Authorization: TD1`, `X-TD-Write-Key`, `api_key` and `td_write_key`.

    Raises:
        Refused: as `Intake.verify`.
    """
    sent = request.credentials("td1") or request.headers.get("x-td-write-key", "")
    for name in KEY_PARAMETERS:
        sent = sent or request.parameter(name) or ""
    return intake.verify(
        sent,
        "`authorization: TD1 KEY`, `x-td-write-key: KEY` or the query parameter `api_key` or `td_write_key`",
    )


def check_database(found: Admitted, database: str) -> None:
    """Check that a sender's account is the database that it names.

    Raises:
        Refused: `wrong_database`.
    """
    if found.key.account != database:
        raise Refused("wrong_database")


def fill_placeholders(event: Any, visitor: Visitor) -> Any:
    """Replace each placeholder, a member whose value is its own name; unknown values become null."""
    if not isinstance(event, dict):
        return event
    wanted = [name for name in PLACEHOLDERS if event.get(name) == name]
    return event | {name: PLACEHOLDERS[name](visitor) or None for name in wanted} if wanted else event


PLACEHOLDERS: Mapping[str, Callable[[Visitor], str | None]] = {
    "td_ip": lambda visitor: visitor.ip,
    "td_ua": lambda visitor: visitor.user_agent,
    "td_user_agent": lambda visitor: visitor.user_agent,
    "td_global_id": lambda visitor: visitor.global_id,
    "td_browser": lambda visitor: browser(visitor.user_agent).name,
    "td_browser_version": lambda visitor: browser(visitor.user_agent).version,
    "td_os": lambda visitor: browser(visitor.user_agent).system,
    "td_os_version": lambda visitor: browser(visitor.user_agent).system_version,
}
"""The server's value for each placeholder."""
