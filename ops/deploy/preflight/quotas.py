"""Checks of the AWS account's quotas: concurrency, streams, caches."""

from collections.abc import Iterator

from ops.deploy.preflight.survey import Survey
from ops.diagnosis.check_result import CheckResult, fault, ok, unknown, warning

_RESERVABLE = 100
"""Concurrency that Lambda always keeps unreserved."""
_NEW_ACCOUNT = 10
_QUOTAS = {
    "AWS::ElastiCache::ServerlessCache": (
        "elasticache",
        "Serverless Caches per Region",
        "elasticache",
        "describe_serverless_caches",
        "ServerlessCaches",
        "delete one",
    )
}


def concurrency(survey: Survey) -> Iterator[CheckResult]:
    """Check that the functions can reserve their concurrency."""
    limit = survey.client("lambda").get_account_settings()["AccountLimit"]
    reserved = int(survey.values["IngestConcurrency"]) + int(survey.values["WorkerConcurrency"])
    left = limit["UnreservedConcurrentExecutions"]
    request = "Request more: `aws service-quotas request-service-quota-increase --service-code lambda --quota-code L-B99A9384 --desired-value 1000`."
    if reserved and left - reserved < _RESERVABLE and not survey.is_there():
        yield fault(
            "concurrency",
            f"{reserved} cannot be reserved: the account has {left} unreserved, of which Lambda keeps {_RESERVABLE}.",
            f"Set IngestConcurrency and WorkerConcurrency to 0. {request}",
        )
    elif limit["ConcurrentExecutions"] <= _NEW_ACCOUNT:
        yield warning(
            "concurrency",
            f"This new account may run only {limit['ConcurrentExecutions']} functions at a time: more simultaneous requests get 503.",
            request,
        )
    else:
        yield ok("concurrency", f"{limit['ConcurrentExecutions']:,}")


def stream(survey: Survey) -> Iterator[CheckResult]:
    """Check that Kinesis allows another stream of this mode."""
    limits = survey.client("kinesis").describe_limits()
    if survey.is_there():
        return
    if survey.values["StreamMode"] == "ON_DEMAND":
        used, limit, what = (
            limits["OnDemandStreamCount"],
            limits["OnDemandStreamCountLimit"],
            "on-demand streams",
        )
        wanted = 1
    else:
        used, limit, what = limits["OpenShardCount"], limits["ShardLimit"], "shards"
        wanted = int(survey.values["ShardCount"])
    if used + wanted > limit:
        yield fault(
            "stream",
            f"{used} of {limit} {what} are in use, and the stack needs {wanted}.",
            "Delete some, or request a higher quota for Kinesis in the Service Quotas console.",
        )
    else:
        yield ok("stream", f"{used} of {limit} {what} in use")


def quotas(survey: Survey) -> Iterator[CheckResult]:
    """Check the quotas of other resources."""
    if survey.is_there():
        return
    quotas = survey.client("service-quotas")
    made = list(survey.types.values())
    for kind, (code, name, service, operation, answer, advice) in _QUOTAS.items():
        if kind not in made:
            continue
        pages = quotas.get_paginator("list_service_quotas").paginate(ServiceCode=code)
        found = [one for page in pages for one in page["Quotas"] if one["QuotaName"].lower() == name.lower()]
        used = len(getattr(survey.client(service), operation)()[answer])
        if not found:
            yield unknown("quotas", f"Service Quotas does not list the quota {name}.")
        elif used + made.count(kind) > found[0]["Value"]:
            yield fault(
                "quotas",
                f"{used} of {found[0]['Value']:.0f} ({name}) are in use.",
                f"Request more in the Service Quotas console, or {advice}.",
            )
        else:
            yield ok("quotas", f"{used} of {found[0]['Value']:.0f} ({name}) in use")
