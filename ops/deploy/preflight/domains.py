"""Checks of the custom domain and of the SDK's hosting."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ops.deploy.preflight.survey import Survey
from ops.failure import if_there
from ops.state.finding import Finding, fault, ok, unknown, warning

if TYPE_CHECKING:
    from mypy_boto3_route53 import Route53Client

_AMAZON = {"amazon.com", "amazontrust.com", "awstrust.com", "amazonaws.com"}


def domain(survey: Survey) -> Iterator[Finding]:
    """Check that the custom domain's certificate can be validated, and that its name is free."""
    domain, zone_id = survey.values["DomainName"], survey.values["HostedZoneId"]
    if not domain or not zone_id:
        return
    route53 = survey.client("route53")
    zone = if_there(route53.get_hosted_zone, Id=zone_id)
    if zone is None:
        yield fault(
            "hosted zone", f"There is no hosted zone {zone_id}.", "See `aws route53 list-hosted-zones`."
        )
        return
    name = zone["HostedZone"]["Name"].rstrip(".")
    if zone["HostedZone"]["Config"]["PrivateZone"]:
        yield fault("hosted zone", f"{name} is a private zone.", "Set HostedZoneId to the public one.")
    elif domain != name and not domain.endswith(f".{name}"):
        yield fault("hosted zone", f"{domain} is not in the zone {name}.", "Set HostedZoneId to its zone.")
    else:
        yield _delegation(survey, name, zone["DelegationSet"]["NameServers"])
    yield from _authorities(survey, domain)
    if (survey.live or {}).get("DomainName") != domain:
        yield from _record(survey, route53, zone_id, domain)


def _delegation(survey: Survey, name: str, servers: list[str]) -> Finding:
    wanted = {server.rstrip(".").lower() for server in servers}
    found = survey.lookup(name, "NS")
    if found is None:
        return unknown("delegation", "DNS does not answer.")
    if not wanted & {server.rstrip(".").lower() for server in found}:
        return fault(
            "delegation",
            f"{name} is not delegated to this hosted zone, so its certificate would never be validated and the deploy would hang.",
            f"Set these name servers at {name}'s registrar or parent zone: {', '.join(sorted(wanted))}.",
        )
    return ok("delegation", name)


def _authorities(survey: Survey, domain: str) -> Iterator[Finding]:
    labels = domain.split(".")
    for start in range(len(labels) - 1):
        parent = ".".join(labels[start:])
        records = [record for record in survey.lookup(parent, "CAA") or () if " issue " in record]
        if records:
            if not any(authority in record for record in records for authority in _AMAZON):
                yield fault(
                    "certificate authority",
                    f"The CAA records of {parent} do not allow Amazon to issue certificates.",
                    f'Add the record `0 issue "amazon.com"` to {parent}.',
                )
            return


def _record(survey: Survey, route53: "Route53Client", zone_id: str, domain: str) -> Iterator[Finding]:
    answer = route53.list_resource_record_sets(HostedZoneId=zone_id, StartRecordName=domain, MaxItems="10")
    taken = [
        one["Type"]
        for one in answer["ResourceRecordSets"]
        if one["Name"].rstrip(".") == domain and one["Type"] in ("A", "AAAA", "CNAME")
    ]
    if taken:
        yield fault(
            "record",
            f"{domain} already has a DNS record ({taken[0]}).",
            "Delete it, or choose another DomainName.",
        )
    pages = survey.client("apigatewayv2").get_paginator("get_domain_names").paginate()
    if any(one["DomainName"] == domain for page in pages for one in page["Items"]):
        yield fault(
            "custom domain",
            f"API Gateway already has the custom domain {domain}.",
            "Delete it, or choose another DomainName.",
        )


def sdk(survey: Survey) -> Iterator[Finding]:
    """Check that the account can create a CloudFront distribution."""
    if survey.values["SdkHosting"] != "on":
        return
    pages = survey.client("cloudfront", "us-east-1").get_paginator("list_distributions").paginate()
    if not any(page["DistributionList"].get("Items", ()) for page in pages):
        yield warning(
            "CloudFront",
            "This account has no distribution yet. AWS refuses to create one for accounts that it has not verified, and the whole deploy fails.",
            "If the account is new, set SdkHosting=off for now: see docs/deploying.md#cloudfront-verification.",
        )
    else:
        yield ok("CloudFront")
