"""Checks of the AWS account's quotas: concurrency, streams, caches."""

from collections.abc import Iterator, Mapping

from ops.cost.estimate import Setup
from ops.deploy.preflight.survey import Survey
from ops.failure import if_there
from ops.state.finding import Finding, fault, ok, unknown, warning

_RESERVABLE = 100
"""Concurrency that Lambda always keeps unreserved."""
_SMALL = 2 * _RESERVABLE
"""At most this much concurrency leaves nothing worth reserving; a new account has 10."""
_CACHES = "Serverless Caches per Region"


def concurrency(survey: Survey) -> Iterator[Finding]:
    """Check that the functions can reserve their concurrency, or that the API leaves them some."""
    limit = survey.client("lambda").get_account_settings()["AccountLimit"]
    most, left = limit["ConcurrentExecutions"], limit["UnreservedConcurrentExecutions"]
    wanted = _reserved(survey, survey.values)
    more = wanted - (_reserved(survey, survey.live) if survey.live is not None else 0)
    request = "Request more: `aws service-quotas request-service-quota-increase --service-code lambda --quota-code L-B99A9384 --desired-value 1000`."
    if more > 0 and left - more < _RESERVABLE:
        yield fault(
            "concurrency",
            f"{more} more cannot be reserved: the account has {left} unreserved, of which Lambda keeps {_RESERVABLE}.",
            f"Set IngestConcurrency=0 WorkerConcurrency=0 {_throttle(most)}, so that the API leaves the other functions some. {request}",
        )
    elif not wanted and (burst := int(survey.values["ThrottlingBurst"])) > most // 2:
        yield warning(
            "concurrency",
            f"This account may run {most:,} functions at a time, and a burst of {burst:,} requests can leave deliveries waiting.",
            f"Set {_throttle(most)}. {request if most <= _SMALL else ''}".strip(),
        )
    elif not wanted and most <= _SMALL:
        said = f"This account may run only {most} functions at a time, of which the API leaves {most - burst} for deliveries."
        yield warning("concurrency", said, request)
    elif not wanted and survey.values["Stage"] == "prod":
        yield warning(
            "concurrency",
            "Nothing is reserved, so many requests at once can leave deliveries waiting.",
            f"Set IngestConcurrency={most // 2} WorkerConcurrency={max(most // 10, 2 * Setup.of(survey.values).most_shards)}.",
        )
    else:
        yield ok("concurrency", f"{most:,}{f', {wanted} of them reserved' if wanted else ''}")


def _reserved(survey: Survey, values: Mapping[str, str]) -> int:
    """Return what all functions reserve with these parameters."""
    known = survey.template.parameters(survey.template.known(values))
    return sum(
        int(reserved)
        for name in survey.template.logical_ids("AWS::Serverless::Function")
        if (reserved := survey.template.reserved_concurrency(name, known))
    )


def _throttle(most: int) -> str:
    """Return the API's throttle that leaves half of the account's concurrency: a request takes about 50 ms."""
    return f"ThrottlingRate={most // 2 * 20} ThrottlingBurst={most // 2}"


def stream(survey: Survey) -> Iterator[Finding]:
    """Check that Kinesis allows the stream, and the shards that it does not have yet."""
    kinesis = survey.client("kinesis")
    limits = kinesis.describe_limits()
    own, mode = 0, ""
    if name := survey.outputs.get("StreamName"):
        found = if_there(kinesis.describe_stream_summary, StreamName=name)
        if found:
            own = found["StreamDescriptionSummary"]["OpenShardCount"]
            mode = found["StreamDescriptionSummary"]["StreamModeDetails"]["StreamMode"]
    if survey.values["StreamMode"] == "ON_DEMAND":
        used, limit, what = (
            limits["OnDemandStreamCount"],
            limits["OnDemandStreamCountLimit"],
            "on-demand streams",
        )
        wanted, possible = int(mode != "ON_DEMAND"), 0
    else:
        used, limit, what = limits["OpenShardCount"], limits["ShardLimit"], "shards"
        if mode == "ON_DEMAND":
            own = 0  # only then do they count
        least = int(survey.values["ShardCount"]) if survey.values["StreamMode"] == "PROVISIONED" else 1
        wanted, possible = max(0, least - own), max(0, Setup.of(survey.values).most_shards - own)
    if used + wanted > limit:
        yield fault(
            "stream",
            f"{used} of {limit} {what} are in use, and the stack needs {wanted} more.",
            "Delete some, or request a higher quota for Kinesis in the Service Quotas console.",
        )
    elif used + possible > limit:
        yield warning(
            "stream",
            f"{used} of {limit} {what} are in use, so the stream cannot grow to MaxShards={survey.values['MaxShards']}.",
            "Request a higher quota for Kinesis in the Service Quotas console, or set MaxShards.",
        )
    else:
        yield ok("stream", f"{used} of {limit} {what} in use")


def quotas(survey: Survey) -> Iterator[Finding]:
    """Check the quota of caches."""
    if "AWS::ElastiCache::ServerlessCache" not in survey.new_types.values():
        return
    pages = survey.client("service-quotas").get_paginator("list_service_quotas")
    found = [
        one["Value"]
        for page in pages.paginate(ServiceCode="elasticache")
        for one in page["Quotas"]
        if one["QuotaName"].lower() == _CACHES.lower()
    ]
    caches = survey.client("elasticache").get_paginator("describe_serverless_caches").paginate()
    used = sum(len(page["ServerlessCaches"]) for page in caches)
    said = f"{used} of {found[0]:.0f} ({_CACHES}) in use" if found else ""
    if not found:
        yield unknown("quotas", f"Service Quotas does not list the quota {_CACHES}.")
    elif used >= found[0]:
        yield fault("quotas", f"{said}.", "Request more in the Service Quotas console, or delete one.")
    else:
        yield ok("quotas", said)
