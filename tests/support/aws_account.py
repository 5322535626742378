"""An AWS account as `sluice preflight` sees it: real boto3 clients, which validate requests. Responses must match AWS's own model of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from botocore import xform_name
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator

from doubles.aws_errors import client_error
from tests.support.modelled import answered
from tests.support.sam import template
from worker.states import Event
from worker.treasure_data.client import ACCEPTED, Outcome

REGION = "eu-central-1"
ACCOUNT = "123456789012"
SLUICE = "Sluice collects events over HTTP and loads them into Treasure Data."
NAME_SERVERS = ["ns-1.awsdns-01.org", "ns-2.awsdns-02.net"]
TD_KEY = f"1/{'a1' * 20}"


@dataclass
class AwsAccount:
    """The content of the account; by default a healthy one in which Sluice has never been deployed.

    Attributes:
        calls: the actions called, named as in IAM.
        forbidden: actions that policy simulations deny to the caller.
        topics: the subscriptions of each topic, by ARN; a subscription is `PendingConfirmation` or an ARN.
        reserved: the concurrency that functions have reserved.
        stream: mode and shards of the stream of existing stacks.
        forbidden_by_organization: actions that the organization's policies deny.
        unreadable: operations that are denied to the caller, for example `GetAccountSettings`.
    """

    caller: str = f"arn:aws:sts::{ACCOUNT}:assumed-role/deployer/me"
    calls: set[str] = field(default_factory=set)
    forbidden: set[str] = field(default_factory=set)
    forbidden_by_organization: set[str] = field(default_factory=set)
    unreadable: set[str] = field(default_factory=set)
    expired: bool = False
    stacks: list[dict[str, Any]] = field(default_factory=list)
    concurrency: int = 1000
    shards: int = 0
    on_demand_streams: int = 0
    caches: list[str] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    zone: str | None = "example.com"
    zone_is_private: bool = False
    records: dict[str, str] = field(default_factory=dict)
    api_domains: list[str] = field(default_factory=list)
    distributions: list[list[str]] = field(default_factory=lambda: [[]])
    subnets: dict[str, str] = field(
        default_factory=lambda: {"subnet-0a1b2c": "vpc-1", "subnet-3d4e5f": "vpc-1"}
    )
    groups: dict[str, str] = field(default_factory=lambda: {"sg-0a1b2c": "vpc-1"})
    topics: dict[str, list[str]] = field(default_factory=dict)
    policies: set[str] = field(default_factory=set)
    reserved: int = 0
    stream: tuple[str, int] = ("PROVISIONED", 1)
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)

    def add_stack(self, name: str, status: str, *, description: str = SLUICE, **parameters: str) -> None:
        """Put a stack with these parameters into the account."""
        made: dict[str, Any] = {"StackName": name, "StackStatus": status, "Description": description}
        given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
        outputs = [{"OutputKey": "StreamName", "OutputValue": f"{name}-Stream"}]
        self.stacks.append(made | {"Parameters": given, "Outputs": outputs})

    def client(self, service: str, region: str) -> Any:
        """Return a boto3 client of a service in this account."""
        prefix = {"apigatewayv2": "apigateway", "service-quotas": "servicequotas"}.get(service, service)

        def answer(model: Any, asked: dict[str, Any]) -> dict[str, Any]:
            self.calls.add("apigateway:GET" if prefix == "apigateway" else f"{prefix}:{model.name}")
            assert region == "us-east-1" or service != "cloudfront"
            try:
                found: dict[str, Any] = self._answer(model.name, asked)
            except ClientError as refused:
                return dict(refused.response)
            report = ParamValidator().validate(found, model.output_shape)
            errors = [one for one in report._errors if one[0] != "missing required field"]
            assert [] == errors, f"the response does not match the model of {model.name}"
            return found

        return answered(service, region, answer)

    def _answer(self, operation: str, asked: dict[str, Any]) -> Any:
        if self.expired:
            raise client_error("ExpiredToken", operation)
        if operation in self.unreadable:
            raise client_error("AccessDenied", operation, "it is not for you.")
        same = self._same()
        return same[operation] if operation in same else getattr(self, f"_{xform_name(operation)}")(asked)

    def _same(self) -> dict[str, Any]:
        """Return the answers that are the same whatever is asked, by operation."""
        mode, shards = self.stream
        concurrency = {
            "ConcurrentExecutions": self.concurrency,
            "UnreservedConcurrentExecutions": self.concurrency - self.reserved,
        }
        limits = {
            "ShardLimit": 200,
            "OpenShardCount": self.shards,
            "OnDemandStreamCount": self.on_demand_streams,
            "OnDemandStreamCountLimit": 50,
        }
        distributions = [{"Aliases": {"Items": names}} for names in self.distributions]
        records = [{"Name": f"{name}.", "Type": kind} for name, kind in self.records.items()]
        summary = {"OpenShardCount": shards, "StreamModeDetails": {"StreamMode": mode}}
        return {
            "GetCallerIdentity": {"Arn": self.caller, "Account": ACCOUNT},
            "GetAccountSettings": {"AccountLimit": concurrency},
            "DescribeStreamSummary": {"StreamDescriptionSummary": summary},
            "DescribeLimits": limits,
            "DescribeUsers": {"Users": [{"UserId": name} for name in self.users]},
            "DescribeUserGroups": {"UserGroups": []},
            "ListResourceRecordSets": {"ResourceRecordSets": records},
            "GetDomainNames": {"Items": [{"DomainName": name} for name in self.api_domains]},
            "ListDistributions": {"DistributionList": {"IsTruncated": False, "Items": distributions}},
        }

    def _get_role(self, asked: Any) -> Any:
        return {"Role": {"Arn": f"arn:aws:iam::{ACCOUNT}:role/team/{asked['RoleName']}"}}

    def _simulate_principal_policy(self, asked: Any) -> Any:
        (place,) = asked["ResourceArns"]
        assert place == "*" or (ACCOUNT in place.split(":") or place.split(":")[4] in ("", "aws")), place
        denied = self.forbidden | self.forbidden_by_organization
        assert "*" not in "".join(asked["ActionNames"])
        results = [
            {
                "EvalActionName": action,
                "EvalDecision": "implicitDeny" if action in denied else "allowed",
                "OrganizationsDecisionDetail": {
                    "AllowedByOrganizations": action not in self.forbidden_by_organization
                },
            }
            for action in asked["ActionNames"]
        ]
        return {"EvaluationResults": results, "IsTruncated": False}

    def _describe_stacks(self, asked: Any) -> Any:
        found = [one for one in self.stacks if asked.get("StackName", one["StackName"]) == one["StackName"]]
        if "StackName" in asked and not found:
            message = f"Stack with id {asked['StackName']} does not exist"
            raise client_error("ValidationError", "DescribeStacks", message)
        return {"Stacks": found}

    def _describe_stack_resource(self, asked: Any) -> Any:
        arn = f"arn:aws:sns:{REGION}:{ACCOUNT}:{asked['StackName']}-{asked['LogicalResourceId']}"
        if arn not in self.topics:
            message = f"Resource {asked['LogicalResourceId']} does not exist"
            raise client_error("ValidationError", "DescribeStackResource", message)
        return {"StackResourceDetail": {"PhysicalResourceId": arn}}

    def _list_subscriptions_by_topic(self, asked: Any) -> Any:
        return {"Subscriptions": [{"SubscriptionArn": one} for one in self.topics[asked["TopicArn"]]]}

    def _get_policy(self, asked: Any) -> Any:
        if asked["PolicyArn"] not in self.policies:
            raise client_error("NoSuchEntity", "GetPolicy")
        return {"Policy": {"Arn": asked["PolicyArn"]}}

    def _list_service_quotas(self, asked: Any) -> Any:
        assert "elasticache" == asked["ServiceCode"]
        quotas = {"Another": 1.0, "Serverless Caches per Region": 40.0}
        return {"Quotas": [{"QuotaName": name, "Value": value} for name, value in quotas.items()]}

    def _describe_subnets(self, asked: Any) -> Any:
        found = [_found(self.subnets, name, "InvalidSubnetID.NotFound") for name in asked["SubnetIds"]]
        return {"Subnets": [{"VpcId": vpc} for vpc in found]}

    def _describe_security_groups(self, asked: Any) -> Any:
        found = [_found(self.groups, name, "InvalidGroup.NotFound") for name in asked["GroupIds"]]
        return {"SecurityGroups": [{"VpcId": vpc} for vpc in found]}

    def _describe_serverless_caches(self, asked: Any) -> Any:
        begin = int(asked.get("NextToken", 0))
        end = begin + 20
        more = {"NextToken": str(end)} if end < len(self.caches) else {}
        return more | {"ServerlessCaches": [{"ServerlessCacheName": name} for name in self.caches[begin:end]]}

    def _get_hosted_zone(self, _asked: Any) -> Any:
        if self.zone is None:
            raise client_error("NoSuchHostedZone", "GetHostedZone")
        zone = {"Name": f"{self.zone}.", "Config": {"PrivateZone": self.zone_is_private}}
        return {"HostedZone": zone, "DelegationSet": {"NameServers": NAME_SERVERS}}

    def _get_topic_attributes(self, asked: Any) -> Any:
        _found(self.topics, asked["TopicArn"], "NotFound")
        return {}

    def _describe_secret(self, asked: Any) -> Any:
        secret = _found(self.secrets, asked["SecretId"], "ResourceNotFoundException")
        return {name: value for name, value in secret.items() if name != "SecretString"}

    def _get_secret_value(self, asked: Any) -> Any:
        return {"SecretString": self.secrets[asked["SecretId"]]["SecretString"]}


@dataclass
class TreasureDataSites:
    """Treasure Data's sites. The key belongs to one of them."""

    home: str | None = "us01"
    is_up: bool = True
    may_import: bool | None = True

    def site(self, _of_import: str, of_api: str, key: str) -> Any:
        """Return a client of the site with this API address and a key."""
        names = {one["Api"]: name for name, one in template()["Mappings"]["TdSites"].items()}
        failed = Outcome(Event.UNANSWERED, key_refused=self.may_import is not None)
        return SimpleNamespace(
            answers=lambda: self.is_up and of_api in names,
            knows_key=lambda: key == TD_KEY and names[of_api] == self.home,
            send=lambda *_: ACCEPTED if self.may_import else failed,
        )


@dataclass
class Dns:
    """A public DNS."""

    records: dict[tuple[str, str], list[str]] = field(
        default_factory=lambda: {("example.com", "NS"): [f"{name}." for name in NAME_SERVERS]}
    )

    def lookup(self, name: str, kind: str) -> list[str] | None:
        """Return the records of a name; an empty list if there are none."""
        return self.records.get((name, kind), [])


def _found[Value](among: Mapping[str, Value], name: str, code: str) -> Value:
    if name not in among:
        raise client_error(code, "Describe", f"{name} does not exist")
    return among[name]
