"""The visitor ids that Treasure Data's SDKs request from a server.

If cookies are off (the default), or the visitor asked not to be identified, every response has a new id and sets no
cookie. What the page does with the id is up to the page.
"""

from ingest import cookie
from ingest.intake import Intake
from ingest.request import Request
from ingest.response import Response, jsonp_response


def answer_global_id(request: Request, intake: Intake) -> Response:
    """Answer with the visitor's id on all sites that use this collector."""
    visitor = intake.privacy.visitor(request)
    if visitor.global_id or not intake.privacy.may_set_cookies(visitor):
        return jsonp_response(request, {"global_id": visitor.global_id or intake.new_id()})
    new = intake.new_id()
    return jsonp_response(request, {"global_id": new}, cookie.for_all_sites(new))


def answer_site_id(request: Request, intake: Intake) -> Response:
    """Answer with the visitor's id on one site, or with a new id if this collector's host is not in the site's domain.

    The cookie is set again each time: browsers expire cookies set by scripts sooner than cookies set by servers.
    """
    domain = cookie.domain_of(request)
    if not domain or not intake.privacy.may_set_cookies(intake.privacy.visitor(request)):
        return jsonp_response(request, {"td_ssc_id": intake.new_id()})
    known = cookie.read(request, cookie.SITE) or intake.new_id()
    return jsonp_response(request, {"td_ssc_id": known}, cookie.for_site(known, domain))
