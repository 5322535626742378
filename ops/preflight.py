"""`sluice preflight`: looks, before anything is created, for what would make a first deploy fail.

It runs with the credentials of whoever deploys, and changes nothing.
"""

import os
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import boto3
import click
import requests
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from ops import deployer, screen
from ops.failure import UNFINISHED, Failure, explained
from ops.template import Template, sluice_template
from shared.clock import SystemClock
from worker.chunk import compress
from worker.treasure_data import Meaning, TreasureDataClient

PROBE_TABLE = "sluice_probe"
"""A table that need not exist: what Treasure Data answers to an empty import into it tells what the key may do."""

_STACK_NAME = re.compile(r"[a-z][a-z0-9-]{0,32}")
_API_KEY = re.compile(r"([1-9][0-9]*/)?[a-f0-9]{40}")
_NO_SNAPSTART = ("ap-east-2", "ap-southeast-6")
_RESERVABLE = 100
"""Concurrency that Lambda never lets functions reserve."""
_NEW_ACCOUNT = 10
_PROBE_SECONDS = 10.0
_AMAZON = {"amazon.com", "amazontrust.com", "awstrust.com", "amazonaws.com"}
_SERVICES = {
    "ApiGatewayV2": "apigatewayv2",
    "AppConfig": "appconfig",
    "CodeDeploy": "codedeploy",
    "DynamoDB": "dynamodb",
    "ElastiCache": "elasticache",
    "Events": "events",
    "Kinesis": "kinesis",
    "Lambda": "lambda",
    "SQS": "sqs",
    "SecretsManager": "secretsmanager",
}
_QUOTAS = {
    "AWS::ElastiCache::ServerlessCache": (
        "elasticache",
        "Serverless Caches per Region",
        "elasticache",
        "describe_serverless_caches",
        "ServerlessCaches",
        "delete one",
    ),
}


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One thing that was looked at.

    Attributes:
        what: it is.
        state: `ok`; `fault`, if the deploy would fail or nothing would be delivered; `warning`; `unknown`, if it could not be
            looked at.
        said: what was found.
        advice: what to do about it.
    """

    what: str
    state: str
    said: str = ""
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is to be deployed.

    Attributes:
        stack: the stack's name.
        region: where.
        given: parameters that are not left at their defaults.
        build: folder of the built template, whose processor has to be the stack's.
    """

    stack: str
    region: str
    given: Mapping[str, str]
    build: Path


class Site(Protocol):
    """Treasure Data at one site, asked with one key."""

    def answers(self) -> bool:
        """Tell whether it is there at all."""
        ...

    def knows_key(self) -> bool:
        """Tell whether it knows the key."""
        ...

    def may_import(self, database: str) -> bool | None:
        """Tell whether the key may import into a database; None where no answer tells."""
        ...


@dataclass(frozen=True, slots=True)
class World:
    """What is asked.

    Attributes:
        client: returns a boto3 client of a service in a region.
        regions: returns the regions that have a service.
        lookup: returns the DNS records of a name and type; None where DNS does not answer.
        site: returns Treasure Data at endpoints for imports and for everything else, asked with a key.
    """

    client: Callable[[str, str], Any]
    regions: Callable[[str], list[str]]
    lookup: Callable[[str, str], list[str] | None]
    site: Callable[[str, str, str], Site]


class Preflight:
    """Looks.

    Args:
        plan: what is to be deployed.
        world: what to ask.
        td_api_key: Treasure Data's key; empty where it is in the secret TdApiKeySecretArn, or not known.
        database: a database of Treasure Data that the key must be able to write to; empty for none.
        template: of the stack.
    """

    def __init__(
        self,
        plan: Deployment,
        world: World,
        td_api_key: str = "",
        database: str = "",
        template: Template | None = None,
    ) -> None:
        self._plan = plan
        self._world = world
        self._td_api_key = td_api_key
        self._database = database
        self._template = template or sluice_template()
        known = {name: value for name, value in plan.given.items() if self._template.has_parameter(name)}
        self._values = self._template.parameters(known)
        self._types = self._template.resources(self._values)
        self._account = ""

    def findings(self) -> Iterator[CheckResult]:
        """Yield what was looked at. Without credentials nothing else can be."""
        yield from self._parameters()
        yield from self._region()
        yield from self._build()
        credentials = list(self._guarded(self._credentials))
        yield from credentials
        if credentials[0].state == "ok":
            for look in (
                self._stack,
                self._rights,
                self._names,
                self._concurrency,
                self._stream,
                self._quotas,
                self._network,
                self._domain,
                self._sdk,
                self._topic,
                self._secrets,
            ):
                yield from self._guarded(look)
        yield from self._guarded(self._treasure_data)

    def _guarded(self, look: Callable[[], Iterator[CheckResult]]) -> Iterator[CheckResult]:
        """Yield what a look finds; what the caller may not see is unknown."""
        what = look.__name__.lstrip("_").replace("_", " ")
        try:
            yield from look()
        except (ClientError, BotoCoreError) as error:
            state = "fault" if what == "credentials" else "unknown"
            yield CheckResult(what, state, explained(error).message)

    def _client(self, service: str, region: str = "") -> Any:
        return self._world.client(service, region or self._plan.region)

    def _parameters(self) -> Iterator[CheckResult]:
        objections = self._template.objections(self._plan.given)
        for said in objections:
            yield CheckResult("parameters", "fault", said, "Correct parameter_overrides in samconfig.toml.")
        if not _STACK_NAME.fullmatch(self._plan.stack):
            yield CheckResult(
                "stack name",
                "fault",
                f"{self._plan.stack} is not a name for a stack.",
                "Use at most 33 lower-case letters, digits and hyphens, beginning with a letter.",
            )
        shards, workers = int(self._values["ShardCount"]), int(self._values["WorkerConcurrency"])
        if 0 < workers < shards and self._values["StreamMode"] == "PROVISIONED":
            yield CheckResult(
                "parameters",
                "fault",
                f"WorkerConcurrency={workers} is less than ShardCount={shards}: some shards would wait.",
                f"Set WorkerConcurrency to 0 or to at least {shards}.",
            )
        elif not objections:
            yield CheckResult("parameters", "ok")

    def _region(self) -> Iterator[CheckResult]:
        region = self._plan.region
        services = {name.split("::")[1] for name in self._types.values()} & _SERVICES.keys()
        missing = sorted(name for name in services if region not in self._world.regions(_SERVICES[name]))
        if missing:
            yield CheckResult(
                "region",
                "fault",
                f"{region} does not have {', '.join(missing)}.",
                "Check its name, or deploy to another region.",
            )
        elif self._values["SnapStart"] == "on" and region in _NO_SNAPSTART:
            yield CheckResult("region", "fault", f"{region} does not have SnapStart.", "Set SnapStart=off.")
        else:
            yield CheckResult("region", "ok", region)

    def _build(self) -> Iterator[CheckResult]:
        built = {_processor(path) for path in self._plan.build.glob("*/**/*.so")} - {""}
        wanted = self._values["Architecture"]
        if built - {wanted}:
            yield CheckResult(
                "build",
                "fault",
                f"{self._plan.build} is built for {', '.join(sorted(built))}, and the stack's Architecture is {wanted}.",
                "Run `sam build` with the same --config-env or --parameter-overrides as `sam deploy`.",
            )
        elif built:
            yield CheckResult("build", "ok", f"for {wanted}")
        else:
            yield CheckResult("build", "warning", "Nothing is built.", "Run `sam build` before `sam deploy`.")

    def _credentials(self) -> Iterator[CheckResult]:
        who = self._client("sts").get_caller_identity()
        self._account = who["Account"]
        yield CheckResult("credentials", "ok", f"{who['Arn']} in account {who['Account']}")

    def _stack(self) -> Iterator[CheckResult]:
        """Yield whether the stack's name is free, or its own, and in a state that a deploy can start from."""
        pages = self._client("cloudformation").get_paginator("describe_stacks").paginate()
        stacks = [stack for page in pages for stack in page["Stacks"]]
        ours = next((stack for stack in stacks if stack["StackName"] == self._plan.stack), None)
        if ours is None:
            yield CheckResult("stack", "ok", f"{self._plan.stack} is free")
        else:
            yield self._existing(ours)
            yield from self._left_network(ours)
        sam = next((stack for stack in stacks if stack["StackName"] == "aws-sam-cli-managed-default"), None)
        if sam is not None and not sam["StackStatus"].endswith(("CREATE_COMPLETE", "UPDATE_COMPLETE")):
            yield CheckResult(
                "upload bucket",
                "fault",
                f"The SAM CLI's own stack aws-sam-cli-managed-default is in {sam['StackStatus']}.",
                "Delete it: `aws cloudformation delete-stack --stack-name aws-sam-cli-managed-default`. "
                "`sam deploy` creates it again.",
            )

    def _existing(self, stack: Mapping[str, Any]) -> CheckResult:
        name, status = stack["StackName"], stack["StackStatus"]
        command = f"`aws cloudformation {{}} --stack-name {name} --region {self._plan.region}`"
        if stack.get("Description") not in (None, "", self._template.description):
            return CheckResult(
                "stack",
                "fault",
                f"The name {name} is taken by another stack.",
                "Change stack_name in samconfig.toml.",
            )
        said = f"{name} is in {status}."
        if status in ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED"):
            advice = f"It cannot be updated. Delete it first: {command.format('delete-stack')}"
            return CheckResult("stack", "fault", said, f"{advice}.")
        if status == "UPDATE_ROLLBACK_FAILED":
            return CheckResult(
                "stack",
                "fault",
                said,
                f"Finish the rollback first: {command.format('continue-update-rollback')}.",
            )
        if status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS":
            return CheckResult(
                "stack", "fault", said, f"Wait for it: {command.format('describe-stack-events')}."
            )
        return CheckResult("stack", "ok", said)

    def _left_network(self, stack: Mapping[str, Any]) -> Iterator[CheckResult]:
        """Object to a deploy that leaves a VPC and takes away what Lambda needs to delete its interfaces there."""
        now = {one["ParameterKey"]: one["ParameterValue"] for one in stack.get("Parameters", ())}
        if now.get("Network") == "existing" and not self._values["SubnetIds"]:
            yield CheckResult(
                "network",
                "fault",
                "The functions leave their subnets, and without SubnetIds Lambda may not delete its interfaces there.",
                f"Keep SubnetIds={now.get('SubnetIds', '')} for an hour after this deploy.",
            )

    def _rights(self) -> Iterator[CheckResult]:
        """Yield which actions of a deploy the caller is denied, as IAM and the organization's policies say."""
        iam = self._client("iam")
        arn = self._client("sts").get_caller_identity()["Arn"]
        if arn.endswith(":root"):
            yield CheckResult(
                "rights", "warning", "These are the root user's.", "Deploy with a role or a user."
            )
            return
        if ":assumed-role/" in arn:
            arn = iam.get_role(RoleName=arn.split("/")[1])["Role"]["Arn"]
        denied: dict[str, None] = {}
        by_organization: dict[str, None] = {}
        for place, actions in deployer.needs(self._types.values()).items():
            pages = iam.get_paginator("simulate_principal_policy").paginate(
                PolicySourceArn=arn,
                ActionNames=[_example(action) for action in actions],
                ResourceArns=[self._concrete(place)],
                ContextEntries=self._context(),
            )
            for result in (one for page in pages for one in page["EvaluationResults"]):
                if result["EvalDecision"] != "allowed":
                    by_scp = not result.get("OrganizationsDecisionDetail", {}).get(
                        "AllowedByOrganizations", True
                    )
                    (by_organization if by_scp else denied)[result["EvalActionName"]] = None
        if by_organization:
            yield CheckResult(
                "organization",
                "fault",
                f"A policy of your organization denies {', '.join(by_organization)}"
                f"{self._about_cache(by_organization)}.",
                "Ask its administrators for an exception, or choose parameters that do without: Network=existing or external, SdkHosting=off.",
            )
        if denied:
            yield CheckResult(
                "rights",
                "fault",
                f"{arn} may not do {', '.join(denied)}.",
                "Attach the policies in docs/deploying.md#permissions to it.",
            )
        if not denied and not by_organization:
            yield CheckResult("rights", "ok", "everything that this deploy needs")

    def _about_cache(self, actions: Mapping[str, None]) -> str:
        is_public = self._connection_type() == "public" and "elasticache:CreateServerlessCache" in actions
        return ", perhaps because the cache has a public endpoint" if is_public else ""

    def _context(self) -> list[dict[str, Any]]:
        """Return what conditions of policies may look at."""
        kind = self._connection_type()
        entry = {
            "ContextKeyName": "elasticache:ConnectionType",
            "ContextKeyValues": [kind],
            "ContextKeyType": "string",
        }
        return [entry] if kind else []

    def _connection_type(self) -> str:
        caches = [name for name, kind in self._types.items() if kind == "AWS::ElastiCache::ServerlessCache"]
        return str(self._template.properties(caches[0]).get("ConnectionType", "vpc")) if caches else ""

    def _concrete(self, place: str) -> str:
        """Return an ARN as this stack will have it."""
        if place == "*":
            return place
        stack = self._plan.stack
        head, *rest = place.split(":", 5)
        parts = [head, *rest]
        parts[3] = self._plan.region if parts[3] == "*" else parts[3]
        parts[4] = self._account if parts[4] == "*" else parts[4]
        zone = self._values["HostedZoneId"]
        names = parts[5].replace("STACK-*", f"{stack}-x").replace("STACK", stack).replace("ZONE", zone)
        parts[5] = names.replace("*", "x")
        return ":".join(parts)

    def _names(self) -> Iterator[CheckResult]:
        """Yield whether names that the stack gives, rather than CloudFormation, are taken."""
        if self._is_there():
            return
        cache, own = self._client("elasticache"), self._values | {"AWS::StackName": self._plan.stack}
        for kind, operation, answer, key in (
            (
                "ServerlessCache",
                "describe_serverless_caches",
                "ServerlessCaches",
                "ServerlessCacheName",
            ),
            ("User", "describe_users", "Users", "UserId"),
            ("UserGroup", "describe_user_groups", "UserGroups", "UserGroupId"),
        ):
            names = {
                self._template.resolve(self._template.properties(name)[key], own)
                for name, of_type in self._types.items()
                if of_type == f"AWS::ElastiCache::{kind}"
            }
            if not names:
                continue
            pages = cache.get_paginator(operation).paginate()
            if taken := sorted(names & {one[key] for page in pages for one in page[answer]}):
                yield CheckResult(
                    "names",
                    "fault",
                    f"ElastiCache has a {kind} named {taken[0]} already.",
                    "Delete it, or change stack_name in samconfig.toml.",
                )
                return
        yield CheckResult("names", "ok")

    def _is_there(self) -> bool:
        try:
            stacks = self._client("cloudformation").describe_stacks(StackName=self._plan.stack)["Stacks"]
        except ClientError as error:
            if error.response["Error"]["Code"] == "ValidationError":
                return False
            raise
        return bool(stacks[0]["StackStatus"] != "REVIEW_IN_PROGRESS")

    def _concurrency(self) -> Iterator[CheckResult]:
        limit = self._client("lambda").get_account_settings()["AccountLimit"]
        reserved = int(self._values["IngestConcurrency"]) + int(self._values["WorkerConcurrency"])
        left = limit["UnreservedConcurrentExecutions"]
        request = "Request more: `aws service-quotas request-service-quota-increase --service-code lambda --quota-code L-B99A9384 --desired-value 1000`."
        if reserved and left - reserved < _RESERVABLE and not self._is_there():
            yield CheckResult(
                "concurrency",
                "fault",
                f"{reserved} cannot be reserved: the account has {left} unreserved, and Lambda keeps {_RESERVABLE}.",
                f"Set IngestConcurrency and WorkerConcurrency to 0. {request}",
            )
        elif limit["ConcurrentExecutions"] <= _NEW_ACCOUNT:
            yield CheckResult(
                "concurrency",
                "warning",
                f"The account may run {limit['ConcurrentExecutions']} functions at a time, as new ones may: requests above that get 503.",
                request,
            )
        else:
            yield CheckResult("concurrency", "ok", f"{limit['ConcurrentExecutions']:,}")

    def _stream(self) -> Iterator[CheckResult]:
        limits = self._client("kinesis").describe_limits()
        if self._is_there():
            return
        if self._values["StreamMode"] == "ON_DEMAND":
            used, limit, what = (
                limits["OnDemandStreamCount"],
                limits["OnDemandStreamCountLimit"],
                "on-demand streams",
            )
            wanted = 1
        else:
            used, limit, what = limits["OpenShardCount"], limits["ShardLimit"], "shards"
            wanted = int(self._values["ShardCount"])
        if used + wanted > limit:
            yield CheckResult(
                "stream",
                "fault",
                f"{used} of {limit} {what} are in use, and the stack needs {wanted}.",
                "Delete some, or request a higher quota for Kinesis in the console of Service Quotas.",
            )
        else:
            yield CheckResult("stream", "ok", f"{used} of {limit} {what} in use")

    def _quotas(self) -> Iterator[CheckResult]:
        if self._is_there():
            return
        quotas = self._client("service-quotas")
        made = list(self._types.values())
        for kind, (code, name, service, operation, answer, advice) in _QUOTAS.items():
            if kind not in made:
                continue
            pages = quotas.get_paginator("list_service_quotas").paginate(ServiceCode=code)
            found = [
                one for page in pages for one in page["Quotas"] if one["QuotaName"].lower() == name.lower()
            ]
            used = len(getattr(self._client(service), operation)()[answer])
            if not found:
                yield CheckResult(
                    "quotas", "unknown", f"Service Quotas does not say how many {name} are allowed."
                )
            elif used + made.count(kind) > found[0]["Value"]:
                yield CheckResult(
                    "quotas",
                    "fault",
                    f"{used} of {found[0]['Value']:.0f} ({name}) are in use.",
                    f"Request more in the console of Service Quotas, or {advice}.",
                )
            else:
                yield CheckResult("quotas", "ok", f"{used} of {found[0]['Value']:.0f} ({name}) in use")

    def _network(self) -> Iterator[CheckResult]:
        """Yield whether subnets and security groups exist, and in one VPC."""
        if self._values["Network"] != "existing" or not self._values["SubnetIds"]:
            return
        ec2 = self._client("ec2")
        try:
            subnets = ec2.describe_subnets(SubnetIds=self._values["SubnetIds"].split(","))["Subnets"]
            groups = ec2.describe_security_groups(GroupIds=self._values["SecurityGroupIds"].split(","))[
                "SecurityGroups"
            ]
        except ClientError as error:
            if "NotFound" not in error.response["Error"]["Code"]:
                raise
            yield CheckResult(
                "network",
                "fault",
                error.response["Error"]["Message"],
                f"SubnetIds and SecurityGroupIds have to be in {self._plan.region}.",
            )
            return
        networks = {one["VpcId"] for one in (*subnets, *groups)}
        if len(networks) > 1:
            yield CheckResult(
                "network",
                "fault",
                f"SubnetIds and SecurityGroupIds are in several VPCs: {', '.join(sorted(networks))}.",
                "Choose them from one.",
            )
        else:
            yield CheckResult("network", "ok", f"in {networks.pop()}")

    def _domain(self) -> Iterator[CheckResult]:
        """Yield whether the certificate of the custom domain can be validated, and the name be served."""
        domain, zone_id = self._values["DomainName"], self._values["HostedZoneId"]
        if not domain or not zone_id:
            return
        route53 = self._client("route53")
        try:
            zone = route53.get_hosted_zone(Id=zone_id)
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchHostedZone":
                raise
            yield CheckResult(
                "hosted zone",
                "fault",
                f"There is no hosted zone {zone_id}.",
                "See `aws route53 list-hosted-zones`.",
            )
            return
        name = zone["HostedZone"]["Name"].rstrip(".")
        if zone["HostedZone"]["Config"]["PrivateZone"]:
            yield CheckResult(
                "hosted zone", "fault", f"{name} is a private zone.", "Set HostedZoneId to the public one."
            )
        elif domain != name and not domain.endswith(f".{name}"):
            yield CheckResult(
                "hosted zone",
                "fault",
                f"{domain} is not in the zone {name}.",
                "Set HostedZoneId to its zone.",
            )
        else:
            yield self._delegation(name, zone["DelegationSet"]["NameServers"])
        yield from self._authorities(domain)
        if not self._is_there():
            yield from self._record(route53, zone_id, domain)

    def _delegation(self, name: str, servers: list[str]) -> CheckResult:
        wanted = {server.rstrip(".").lower() for server in servers}
        found = self._world.lookup(name, "NS")
        if found is None:
            return CheckResult("delegation", "unknown", "DNS does not answer.")
        if not wanted & {server.rstrip(".").lower() for server in found}:
            return CheckResult(
                "delegation",
                "fault",
                f"{name} is not delegated to this hosted zone: the certificate would never be validated, and the deploy would wait.",
                f"Set these name servers at {name}'s registrar or parent zone: {', '.join(sorted(wanted))}.",
            )
        return CheckResult("delegation", "ok", name)

    def _authorities(self, domain: str) -> Iterator[CheckResult]:
        labels = domain.split(".")
        for start in range(len(labels) - 1):
            parent = ".".join(labels[start:])
            records = [record for record in self._world.lookup(parent, "CAA") or () if " issue " in record]
            if records:
                if not any(authority in record for record in records for authority in _AMAZON):
                    yield CheckResult(
                        "certificate authority",
                        "fault",
                        f"A CAA record of {parent} lets only others issue certificates.",
                        f'Add the record `0 issue "amazon.com"` to {parent}.',
                    )
                return

    def _record(self, route53: Any, zone_id: str, domain: str) -> Iterator[CheckResult]:
        answer = route53.list_resource_record_sets(
            HostedZoneId=zone_id, StartRecordName=domain, MaxItems="10"
        )
        taken = [
            one["Type"]
            for one in answer["ResourceRecordSets"]
            if one["Name"].rstrip(".") == domain and one["Type"] in ("A", "AAAA", "CNAME")
        ]
        if taken:
            yield CheckResult(
                "record",
                "fault",
                f"{domain} has a record already ({taken[0]}).",
                "Delete it, or choose another DomainName.",
            )
        pages = self._client("apigatewayv2").get_paginator("get_domain_names").paginate()
        if any(one["DomainName"] == domain for page in pages for one in page["Items"]):
            yield CheckResult(
                "custom domain",
                "fault",
                f"API Gateway has the custom domain {domain} already.",
                "Delete it, or choose another DomainName.",
            )

    def _sdk(self) -> Iterator[CheckResult]:
        if self._values["SdkHosting"] != "on":
            return
        pages = self._client("cloudfront", "us-east-1").get_paginator("list_distributions").paginate()
        distributions = [one for page in pages for one in page["DistributionList"].get("Items", ())]
        domain, arn = self._values["SdkDomainName"], self._values["SdkCertificateArn"]
        if not distributions:
            yield CheckResult(
                "CloudFront",
                "warning",
                "This account has no distribution. AWS refuses them to accounts that it has not verified.",
                "If the deploy fails with `Your account must be verified`, see docs/deploying.md#cloudfront-verification.",
            )
        elif (
            domain
            and not self._is_there()
            and any(domain in one.get("Aliases", {}).get("Items", ()) for one in distributions)
        ):
            yield CheckResult(
                "SDK domain",
                "fault",
                f"Another distribution has the name {domain}.",
                "Choose another SdkDomainName.",
            )
        else:
            yield CheckResult("CloudFront", "ok")
        if domain and arn:
            yield self._certificate(domain, arn)

    def _certificate(self, domain: str, arn: str) -> CheckResult:
        if arn.split(":")[3] != "us-east-1":
            return CheckResult(
                "SDK certificate",
                "fault",
                f"It is in {arn.split(':')[3]}.",
                "CloudFront takes only certificates in us-east-1.",
            )
        try:
            found = self._client("acm", "us-east-1").describe_certificate(CertificateArn=arn)["Certificate"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceNotFoundException":
                raise
            return CheckResult(
                "SDK certificate", "fault", "There is none with this ARN.", "Correct SdkCertificateArn."
            )
        names = [found["DomainName"], *found.get("SubjectAlternativeNames", ())]
        if found["Status"] != "ISSUED":
            return CheckResult(
                "SDK certificate", "fault", f"It is {found['Status']}.", "Validate it before you deploy."
            )
        if not {domain, f"*.{domain.partition('.')[2]}"} & set(names):
            return CheckResult(
                "SDK certificate",
                "fault",
                f"It is for {', '.join(names)}, not for {domain}.",
                "Request one for SdkDomainName.",
            )
        return CheckResult("SDK certificate", "ok")

    def _topic(self) -> Iterator[CheckResult]:
        arn = self._values["AlarmTopicArn"]
        if not arn:
            return
        if arn.split(":")[3] != self._plan.region:
            yield CheckResult(
                "alarm topic", "fault", f"It is in {arn.split(':')[3]}.", f"Use one in {self._plan.region}."
            )
            return
        try:
            self._client("sns").get_topic_attributes(TopicArn=arn)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("NotFound", "NotFoundException"):
                raise
            yield CheckResult("alarm topic", "fault", f"There is no topic {arn}.", "Correct AlarmTopicArn.")
            return
        yield CheckResult("alarm topic", "ok")

    def _secrets(self) -> Iterator[CheckResult]:
        secrets = self._client("secretsmanager")
        for parameter in ("TdApiKeySecretArn", "RedisUrlSecretArn"):
            arn = self._values[parameter]
            if not arn:
                continue
            if arn.split(":")[3] != self._plan.region:
                yield CheckResult(
                    parameter, "fault", f"It is in {arn.split(':')[3]}.", f"Use one in {self._plan.region}."
                )
                continue
            try:
                found = secrets.describe_secret(SecretId=arn)
            except ClientError as error:
                if error.response["Error"]["Code"] != "ResourceNotFoundException":
                    raise
                yield CheckResult(parameter, "fault", f"There is no secret {arn}.", f"Correct {parameter}.")
                continue
            if found.get("KmsKeyId", "alias/aws/secretsmanager").rpartition("/")[2] != "secretsmanager":
                yield CheckResult(
                    parameter,
                    "fault",
                    f"It is encrypted with {found['KmsKeyId']}, which the functions may not use.",
                    "Encrypt it with the AWS managed key aws/secretsmanager.",
                )
            else:
                yield CheckResult(parameter, "ok")

    def _treasure_data(self) -> Iterator[CheckResult]:
        here = self._endpoints(self._values["TdSite"])
        if self._values["TdImportEndpoint"] and self._values["TdApiEndpoint"]:
            here = self._values["TdImportEndpoint"], self._values["TdApiEndpoint"]
        key = self._td_api_key or self._stored_key()
        site = self._world.site(*here, key)
        if not site.answers():
            yield CheckResult(
                "Treasure Data",
                "fault",
                f"{here[1]} does not answer.",
                "Correct TdSite, or TdApiEndpoint, or check your network.",
            )
            return
        if not key:
            yield CheckResult("Treasure Data", "ok", f"{here[1]} answers")
            yield CheckResult(
                "API key", "unknown", "No key is known.", "Set TD_API_KEY and run this again to check it."
            )
            return
        if not _API_KEY.fullmatch(key):
            yield CheckResult(
                "API key",
                "fault",
                "It does not look like one: 40 hexadecimal digits, usually after a number and a slash.",
                "Copy it again from Treasure Data's console.",
            )
            return
        if not site.knows_key():
            yield self._elsewhere(here, key)
            return
        yield CheckResult("API key", "ok", f"{here[1]} knows it")
        if self._database:
            yield self._import_right(site, self._database)

    def _stored_key(self) -> str:
        arn = self._values["TdApiKeySecretArn"]
        if not arn or not self._account or arn.split(":")[3] != self._plan.region:
            return ""
        try:
            answer = self._client("secretsmanager").get_secret_value(SecretId=arn)
        except ClientError:
            return ""
        return str(answer.get("SecretString", ""))

    def _endpoints(self, site: str) -> tuple[str, str]:
        found = self._template.mapping("TdSites")[site]
        return found["Import"], found["Api"]

    def _elsewhere(self, here: tuple[str, str], key: str) -> CheckResult:
        """Return what it means that a site does not know the key."""
        for name in self._template.mapping("TdSites"):
            if self._endpoints(name) != here and self._world.site(*self._endpoints(name), key).knows_key():
                return CheckResult(
                    "API key", "fault", f"It belongs to the site {name}.", f"Set TdSite={name}."
                )
        return CheckResult(
            "API key",
            "fault",
            "No site of Treasure Data knows it.",
            "Issue a new one in Treasure Data's console.",
        )

    @staticmethod
    def _import_right(site: Site, database: str) -> CheckResult:
        allowed = site.may_import(database)
        if allowed is None:
            return CheckResult("import permission", "unknown", "Treasure Data's answer does not tell.")
        if not allowed:
            return CheckResult(
                "import permission",
                "fault",
                f"The key may not import into {database}.",
                "Give its user that permission.",
            )
        return CheckResult("import permission", "ok", database)


def _example(action: str) -> str:
    """Return an action that a pattern stands for: IAM simulates no patterns."""
    return {"s3:GetBucket*": "s3:GetBucketLocation"}.get(action, action)


_MACHINES = {62: "x86_64", 183: "arm64"}


def _processor(library: Path) -> str:
    """Return the processor that a shared library is for, empty where its ELF header names another one or there is none."""
    with library.open("rb") as file:
        head = file.read(20)
    return _MACHINES.get(int.from_bytes(head[18:20], "little"), "") if head.startswith(b"\x7fELF") else ""


class _FixedKey:
    """A key that is known already, in the place of a secret."""

    def __init__(self, key: str) -> None:
        self._key = key

    def get(self, max_age: float = float("inf")) -> str:  # noqa: ARG002 -- as a secret
        return self._key

    def changed(self, text: str) -> bool:
        return text != self._key


class _RealSite:
    def __init__(self, of_import: str, of_api: str, key: str) -> None:
        self._td = TreasureDataClient(requests.Session(), of_import, of_api, _FixedKey(key), SystemClock())  # type: ignore[arg-type]  # it only reads the key

    def answers(self) -> bool:
        return self._td.answers()

    def knows_key(self) -> bool:
        return self._td.knows_key()

    def may_import(self, database: str) -> bool | None:
        reply = self._td.send(database, PROBE_TABLE, "0" * 32, compress(b""), _PROBE_SECONDS)
        return None if reply.meaning is Meaning.PASSING else reply.meaning is not Meaning.KEY_REFUSED


_DNS_TYPES = {"NS": 2, "CAA": 257}


def _lookup(name: str, kind: str) -> list[str] | None:
    """Look DNS records up over HTTPS: Python's own resolver knows addresses only."""
    try:
        answer = requests.get(
            "https://dns.google/resolve", params={"name": name, "type": str(_DNS_TYPES[kind])}, timeout=5
        ).json()
    except (requests.RequestException, ValueError):
        return None
    return [one["data"] for one in answer.get("Answer", ()) if one.get("type") == _DNS_TYPES[kind]]


def planned(config: Path, environment: str, region: str, stack: str, overrides: str) -> Deployment:
    """Return what `sam deploy` would deploy.

    Args:
        config: samconfig.toml; it need not exist.
        environment: its section, as for `--config-env`.
        region: where, or empty for the session's.
        stack: the stack's name, or empty for the section's.
        overrides: instead of the section's, as for `--parameter-overrides`.

    Raises:
        Failure: the file cannot be read, or names no stack.
    """
    found: dict[str, Any] = {}
    if config.exists():
        try:
            section = tomllib.loads(config.read_text()).get(environment, {})
        except tomllib.TOMLDecodeError as error:
            raise Failure(f"{config} is not TOML: {error}") from error
        for command in ("global", "deploy"):
            found |= section.get(command, {}).get("parameters", {})
    text = overrides or found.get("parameter_overrides", "")
    pairs = shlex.split(text if isinstance(text, str) else " ".join(text))
    given = dict(pair.partition("=")[::2] for pair in pairs)
    name = stack or found.get("stack_name", "")
    if not name:
        raise Failure(f"{config} has no stack_name for {environment}: give --stack-name")
    where = region or found.get("region", "")
    return Deployment(name, where, given, config.parent / ".aws-sam" / "build")


@click.command("preflight")
@click.option(
    "--config-env", default="default", show_default=True, help="Section of samconfig.toml, as for sam."
)
@click.option(
    "--config-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("samconfig.toml"),
    show_default=True,
    help="The samconfig.toml to read.",
)
@click.option("--stack-name", default="", help="Name of the stack to create. Default: the section's.")
@click.option("--region", default="", help="Region to deploy to. Default: the section's, or your profile's.")
@click.option("--parameter-overrides", default="", help="Parameters, instead of the section's.")
@click.option(
    "--database", default="", help="Treasure Data database that the API key must be able to write to."
)
@screen.json_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    config_env: str,
    config_file: Path,
    stack_name: str,
    region: str,
    parameter_overrides: str,
    database: str,
    as_json: bool,
) -> None:
    """Check, before anything is created, what would make a deploy fail.

    It looks at your permissions, quotas, names, the domain, the parameters and, with TD_API_KEY in the environment, at the
    Treasure Data API key. It changes nothing.
    """
    plan = planned(config_file, config_env, region, stack_name, parameter_overrides)
    session = boto3.Session(region_name=plan.region or os.environ.get("AWS_REGION"))
    if not session.region_name:
        raise Failure("no region: pass --region or set AWS_REGION")
    plan = Deployment(plan.stack, session.region_name, plan.given, plan.build)
    config = Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 5})

    def client(service: str, where: str) -> Any:
        return session.client(service, region_name=where, config=config)  # type: ignore[call-overload]  # not a literal

    world = World(client, session.get_available_regions, _lookup, _RealSite)
    found = []
    for finding in Preflight(plan, world, os.environ.get("TD_API_KEY", ""), database).findings():
        found.append(finding)
        if not as_json:
            screen.say(line(finding))
    faults = sum(finding.state == "fault" for finding in found)
    if as_json:
        screen.show_json({"ready": not faults, "findings": [asdict(finding) for finding in found]})
    else:
        screen.say(f"\n{screen.plural(faults, 'fault')}." if faults else f"\n{plan.stack} can be deployed.")
    ctx.exit(UNFINISHED if faults else 0)


_MARKS = {"ok": "ok     ", "fault": "FAULT  ", "warning": "note   ", "unknown": "?      "}


def line(finding: CheckResult) -> str:
    """Return a finding as one line."""
    said = " ".join(filter(None, (finding.said, finding.advice)))
    return f"{_MARKS[finding.state]}{finding.what}{f': {said}' if said else ''}"
