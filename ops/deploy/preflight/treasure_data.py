"""Checks of Treasure Data: whether the site answers, and what the API key may do there."""

import re
from collections.abc import Iterator

from botocore.exceptions import ClientError

from ops.deploy.preflight.survey import Survey
from ops.deploy.td_client import SiteClient
from ops.state.finding import Finding, fault, ok, unknown
from worker.health import PROBE_TABLE, SENDER_PROBE_SECONDS
from worker.rows import compress
from worker.states import Event

_API_KEY = re.compile(r"([1-9][0-9]*/)?[a-f0-9]{40}")


def treasure_data(survey: Survey) -> Iterator[Finding]:
    """Check that Treasure Data answers, knows the key, and lets it import."""
    here = endpoints(survey)
    key = survey.td_api_key or _stored_key(survey)
    site = survey.site(*here, key)
    if not site.answers():
        yield fault(
            "Treasure Data",
            f"{here[1]} does not answer.",
            "Correct TdSite or TdApiEndpoint, or check your network.",
        )
        return
    if not key:
        yield ok("Treasure Data", f"{here[1]} answers")
        yield unknown("API key", "It was not checked.", "Set TD_API_KEY and run this again to check it.")
        return
    if not _API_KEY.fullmatch(key):
        yield fault(
            "API key",
            "It does not look like an API key: 40 hexadecimal digits, usually after a number and a slash.",
            "Copy it again from Treasure Data's console.",
        )
        return
    if not site.knows_key():
        yield _elsewhere(survey, here, key)
        return
    yield ok("API key", f"{here[1]} knows it")
    if survey.database:
        yield _import_right(site, survey.database)


def endpoints(survey: Survey) -> tuple[str, str]:
    """Return the endpoint for imports, and the endpoint for everything else."""
    if survey.values["TdImportEndpoint"] and survey.values["TdApiEndpoint"]:
        return survey.values["TdImportEndpoint"], survey.values["TdApiEndpoint"]
    return _endpoints(survey, survey.values["TdSite"])


def _stored_key(survey: Survey) -> str:
    arn = survey.values["TdApiKeySecretArn"]
    if not arn or not survey.account or arn.split(":")[3] != survey.plan.region:
        return ""
    try:
        answer = survey.client("secretsmanager").get_secret_value(SecretId=arn)
    except ClientError:
        return ""
    return str(answer.get("SecretString", ""))


def _endpoints(survey: Survey, site: str) -> tuple[str, str]:
    found = survey.template.mapping("TdSites")[site]
    return found["Import"], found["Api"]


def _elsewhere(survey: Survey, here: tuple[str, str], key: str) -> Finding:
    """Return why a site does not know the key. A key that is meant for an endpoint of the operator's is shown to no other."""
    if survey.values["TdApiEndpoint"]:
        return fault("API key", f"{here[1]} does not know it.", "Issue a new one in Treasure Data's console.")
    for name in survey.template.mapping("TdSites"):
        if _endpoints(survey, name) != here and survey.site(*_endpoints(survey, name), key).knows_key():
            return fault("API key", f"It belongs to the site {name}.", f"Set TdSite={name}.")
    return fault(
        "API key", "No site of Treasure Data knows it.", "Issue a new one in Treasure Data's console."
    )


def _import_right(site: SiteClient, database: str) -> Finding:
    outcome = site.send(database, PROBE_TABLE, "0" * 32, compress(b""), SENDER_PROBE_SECONDS)
    if outcome.refused_key is not None:
        return fault(
            "import permission", f"The key may not import into {database}.", "Give its user this permission."
        )
    if outcome.event is Event.UNANSWERED and not outcome.lacks_table:
        return unknown("import permission", "Treasure Data's response does not say. Try again later.")
    return ok("import permission", database)
