"""The ids that Treasure Data's SDKs ask a server for.

With cookies off, which is the default, or for a visitor who asked not to be identified, each answer brings a new id
and leaves nothing behind: what the page does with it is the page's affair.
"""

from ingest import cookie, jsonp
from ingest.intake import Intake
from ingest.request import Request
from ingest.response import Response


def answer_global_id(request: Request, intake: Intake) -> Response:
    """Answer with the id by which the visitor is known on all sites that use this collector."""
    visitor = intake.privacy.visitor(request)
    if visitor.global_id or not intake.privacy.may_set_cookies(visitor):
        return jsonp.response(request, {"global_id": visitor.global_id or intake.new_id()})
    new = intake.new_id()
    return jsonp.response(request, {"global_id": new}, cookie.for_all_sites(new))


def answer_site_id(request: Request, intake: Intake) -> Response:
    """Answer with the id by which the visitor is known on one site, whose server this collector poses as.

    The cookie is set anew each time: browsers forget what scripts have set sooner than what servers have.
    """
    domain = cookie.domain_of(request)
    if not domain or not intake.privacy.may_set_cookies(intake.privacy.visitor(request)):
        return jsonp.response(request, {"td_ssc_id": intake.new_id()})
    known = cookie.read(request, cookie.SITE) or intake.new_id()
    return jsonp.response(request, {"td_ssc_id": known}, cookie.for_site(known, domain))
