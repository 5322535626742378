"""`sluice preflight`, against doubles of every service that it calls."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import NoCredentialsError
from click.testing import CliRunner

from ops.cli import main
from ops.deploy import deployer
from ops.deploy.preflight import planning
from ops.deploy.preflight.findings import findings
from ops.deploy.preflight.planning import planned
from ops.deploy.preflight.survey import Deployment, Survey
from ops.failure import Failure
from ops.state.finding import Finding
from tests.support.aws_account import ACCOUNT, REGION, TD_KEY, AwsAccount, Dns, TreasureDataSites
from tests.support.sam import ROOT

SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:td-a1b2c3"
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:alarms"
BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/boundary"
DOMAIN = {"DomainName": "events.example.com", "HostedZoneId": "Z0123456789ABC"}
PROD = {"Stage": "prod", "StreamMode": "AUTO"}
NAMED = {"TdApiKeySecretArn": SECRET, "AlarmTopicArn": TOPIC, "PermissionsBoundary": BOUNDARY}
SUBNETS = "subnet-0a1b2c,subnet-3d4e5f"
EXISTING = {"Network": "existing", "SubnetIds": SUBNETS, "SecurityGroupIds": "sg-0a1b2c"}
PLAN = Deployment("sluice-dev", REGION, {"StreamMode": "PROVISIONED"}, Path("/nowhere"))


@dataclass
class Surroundings:
    """The environment of a deploy. It is sound unless a test breaks it."""

    account: AwsAccount = field(default_factory=AwsAccount)
    sites: TreasureDataSites = field(default_factory=TreasureDataSites)
    dns: Dns = field(default_factory=Dns)
    plan: Deployment = PLAN
    key: str = TD_KEY
    database: str = "shop"
    regions: list[str] = field(default_factory=lambda: [REGION, "ap-east-2"])

    def given(self, **parameters: str) -> None:
        """Set parameters."""
        self.plan = replace(self.plan, given={**self.plan.given, **parameters})

    def findings(self) -> list[Finding]:
        """Return what the preflight finds. Each finding is one line, with its remedy."""
        world = (self.account.client, lambda _service: self.regions, self.dns.lookup, self.sites.site)
        found = list(findings(Survey(self.plan, *world, self.key, self.database)))
        assert [] == [one.line for one in found if "\n" in one.line or len(one.line) > 700]
        return found

    def said(self, state: str = "fault") -> list[tuple[str, str]]:
        """Return its findings of a state: what each is about, and the whole message."""
        return [(one.what, f"{one.said} {one.advice}") for one in self.findings() if one.state == state]


@pytest.fixture
def here(tmp_path: Path) -> Surroundings:
    """Sound surroundings, with a build for the right processor."""
    build(tmp_path, 183)
    return Surroundings(plan=replace(PLAN, build=tmp_path))


def build(folder: Path, machine: int) -> None:
    """Put a library for a processor, given as its ELF machine number, where `sam build` does."""
    library = folder / "IngestFunction" / "orjson" / "orjson.so"
    library.parent.mkdir(parents=True, exist_ok=True)
    library.write_bytes(b"\x7fELF" + bytes(14) + machine.to_bytes(2, "little"))


type Seed = Callable[[Surroundings], object]
UPDATED, FULL = "UPDATE_COMPLETE", [f"cache-{number}" for number in range(40)]


def seed(
    status: str = "",
    live: Mapping[str, str] = {},
    given: Mapping[str, str] = {},
    dns: Mapping[tuple[str, str], list[str]] = {},
    **attributes: Any,
) -> Seed:
    """Return what changes the surroundings: a stack exists in a status, with live parameters, or something has other attributes."""

    def change(here: Surroundings) -> None:
        if status:
            here.account.add_stack("sluice-dev", status, **live)
        here.given(**given)
        here.dns.records |= dns
        for name, value in attributes.items():
            setattr(next(one for one in (here.account, here.sites, here) if hasattr(one, name)), name, value)

    return change


SOUND: dict[str, Seed] = {
    "default": seed(),
    "prod": seed(
        given={"Stage": "prod", "StreamMode": "ON_DEMAND"} | DOMAIN,
        records={"events.example.com": "TXT", "www.example.com": "A"},
        caller=f"arn:aws:iam::{ACCOUNT}:root",
    ),
    "update": seed(UPDATED),
    "update of the cache": seed("CREATE_COMPLETE", caches=["sluice-dev"]),
    "update beside a full account": seed(
        UPDATED,
        {"Network": "managed", "StreamMode": "PROVISIONED"},
        shards=200,
        caches=FULL,
        users=["sluice-dev-writer"],
    ),
    "update of a reserved worker": seed(UPDATED, {"WorkerConcurrency": "80"}, concurrency=194, reserved=94),
    "update of an on-demand stream": seed(
        UPDATED, given={"StreamMode": "ON_DEMAND"}, stream=("ON_DEMAND", 4), on_demand_streams=50
    ),
    "update of the zone's own domain, away from subnets": seed(
        UPDATED,
        EXISTING | DOMAIN | {"DomainName": "example.com"},
        {"Network": "external"},
        records={"example.com": "A"},
        api_domains=["example.com"],
    ),
    "lists": seed(
        given={
            "TrustedProxies": "cloudfront, 203.0.113.0/24",
            "DroppedColumns": "my_time,td_ip",
            "RedirectHosts": "www.example.com, a.example:8443",
        }
    ),
    "other stacks": lambda here: (
        here.account.add_stack("sluice-prod", "CREATE_COMPLETE", Stage="prod"),
        here.account.add_stack("website", "ROLLBACK_COMPLETE", description="a website"),
        here.account.add_stack("aws-sam-cli-managed-default", "CREATE_COMPLETE", description="sam"),
    ),
    "everything given": seed(
        given=DOMAIN | EXISTING | NAMED,
        dns={("example.com", "CAA"): ['0 issue "letsencrypt.org"', '0 issue "amazon.com"']},
        secrets={SECRET: {"SecretString": TD_KEY}},
        topics={TOPIC: [f"{TOPIC}:1"]},
        policies={BOUNDARY},
        key="",
    ),
    "external network": seed(
        given={"Network": "external", "SdkHosting": "off"}, caller=f"arn:aws:iam::{ACCOUNT}:user/me", key=""
    ),
    "x86_64": lambda here: (here.given(Architecture="x86_64"), build(here.plan.build, 62)),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_surroundings_have_no_fault(here: Surroundings, name: str) -> None:
    """A fault is reported only where the deploy would fail."""
    SOUND[name](here)

    assert [] == here.said()


def unsettled(here: Surroundings) -> None:
    """Break what needs no credentials to be checked."""
    here.plan = replace(here.plan, stack="Sluice_Dev")
    here.given(TdSight="eu01", ArchiveDays="1", StreamMode="AUTO", MaxShards="8", WorkerConcurrency="7")
    build(here.plan.build, 62)


def taken(here: Surroundings) -> None:
    """Put another stack in the place of Sluice's, and a broken one in that of the SAM CLI's."""
    here.account.add_stack("sluice-dev", "CREATE_COMPLETE", description="a website")
    here.account.add_stack("aws-sam-cli-managed-default", "ROLLBACK_COMPLETE", description="sam")


SEEDED: dict[str, tuple[Seed, str]] = {
    "expired credentials": (seed(expired=True), "credentials: log in again"),
    "missing rights": (
        seed(forbidden={"iam:CreateRole"}, forbidden_by_organization={"elasticache:CreateServerlessCache"}),
        "rights: iam:CreateRole; organization: elasticache:CreateServerlessCache",
    ),
    "settings": (
        unsettled,
        "stack name: lower-case; parameters: TdSight; parameters: 2; parameters: less than MaxShards=8; build: x86_64",
    ),
    "no proxy": (seed(given={"TrustedProxies": "cloudfront, ::1::"}), "parameters: TrustedProxies cannot be"),
    "columns that every row needs": (
        seed(
            given={"DroppedColumns": "page, time", "HashedColumns": "9_lives", "RedirectHosts": "localhost"}
        ),
        "parameters: DroppedColumns; parameters: HashedColumns; parameters: RedirectHosts",
    ),
    "more variables than Lambda takes": (
        seed(given={"RedirectHosts": ",".join(["shop.example.com"] * 200)}),
        "parameters: RedirectHosts is too long",
    ),
    # the stack
    "failed first deploy": (seed("ROLLBACK_COMPLETE"), "stack: delete-stack --stack-name sluice-dev"),
    "failed deletion": (seed("DELETE_FAILED"), "stack: delete-stack"),
    "failed rollback": (seed("UPDATE_ROLLBACK_FAILED"), "stack: continue-update-rollback"),
    "deploy under way": (seed("UPDATE_IN_PROGRESS"), "stack: Wait"),
    "other stacks": (taken, "stack: taken; upload bucket: aws-sam-cli-managed-default"),
    "what the stack has": (
        seed(
            UPDATED,
            EXISTING | DOMAIN,
            {"Network": "external", "SubnetIds": "", "SecurityGroupIds": "", "HostedZoneId": ""},
            stream=("ON_DEMAND", 2),
            shards=200,
        ),
        "network: Keep SubnetIds=subnet-0a1b2c,subnet-3d4e5f for an hour; parameters: DomainName requires HostedZoneId; stream: the stack needs",
    ),
    # names, quotas and the region
    "user's name": (seed(users=["sluice-dev-writer"], regions=[]), "names: User; region: does not have"),
    "cache of this name": (
        seed(given={"StreamMode": "ON_DEMAND"}, caches=["sluice-dev"], on_demand_streams=50),
        "names: ServerlessCache; stream: 50 of 50 on-demand",
    ),
    "full account": (
        seed(given={"WorkerConcurrency": "5", "ShardCount": "6"}, concurrency=10, shards=200, caches=FULL),
        "concurrency: L-B99A9384; parameters: less than ShardCount=6; stream: 200 of 200 shards; quotas: 40 of 40",
    ),
    "update in a full account": (
        seed(
            UPDATED,
            {"WorkerConcurrency": "80", "Network": "external"},
            {"WorkerConcurrency": "81", "Network": "managed", "ShardCount": "24"},
            concurrency=194,
            reserved=94,
            stream=("PROVISIONED", 12),
            shards=190,
            caches=FULL,
        ),
        "concurrency: 1 more cannot be reserved: the account has 100; stream: the stack needs 12 more; quotas: 40 of 40",
    ),
    "update in a new account": (
        seed(
            UPDATED,
            given={"WorkerConcurrency": "20", "StreamMode": "ON_DEMAND"},
            concurrency=10,
            on_demand_streams=50,
        ),
        "concurrency: ThrottlingRate=100 ThrottlingBurst=5; stream: 50 of 50 on-demand",
    ),
    # the domain
    "no such hosted zone": (seed(given=DOMAIN, zone=None), "hosted zone: Z0123456789ABC"),
    "private hosted zone": (seed(given=DOMAIN, zone_is_private=True), "hosted zone: private"),
    "another hosted zone": (seed(given=DOMAIN, zone="example.org"), "hosted zone: not in the zone"),
    "zone not delegated": (
        seed(
            given=DOMAIN,
            dns={("example.com", "NS"): [], ("example.com", "CAA"): ['0 issue "letsencrypt.org"']},
        ),
        "delegation: ns-1.awsdns-01.org; certificate authority: amazon.com",
    ),
    "zone delegated elsewhere": (
        seed(
            given=DOMAIN,
            dns={("example.com", "NS"): ["ns.other.example."]},
            records={"events.example.com": "CNAME"},
            api_domains=["events.example.com"],
        ),
        "delegation: ns-2.awsdns-02.net; record: CNAME; custom domain: API Gateway",
    ),
    "another domain": (
        seed(UPDATED, DOMAIN | {"DomainName": "a.example.com"}, DOMAIN, api_domains=["events.example.com"]),
        "custom domain: API Gateway",
    ),
    # what parameters name
    "nothing there": (
        seed(given=EXISTING | NAMED, subnets={}),
        "network: subnet-0a1b2c; alarm topic: AlarmTopicArn; TdApiKeySecretArn: no secret; permissions boundary: PermissionsBoundary",
    ),
    "wrong ones": (
        seed(
            given=EXISTING
            | NAMED
            | {"AlarmTopicArn": TOPIC.replace(REGION, "us-east-1")}
            | {"RedisUrlSecretArn": SECRET.replace(REGION, "us-east-1")},
            groups={"sg-0a1b2c": "vpc-2"},
            secrets={SECRET: {"KmsKeyId": "arn:aws:kms:x:1:key/2", "SecretString": TD_KEY}},
            policies={BOUNDARY},
        ),
        "network: several VPCs; alarm topic: us-east-1; RedisUrlSecretArn: us-east-1; TdApiKeySecretArn: aws/secretsmanager",
    ),
    # Treasure Data
    "site that does not answer": (seed(is_up=False), "Treasure Data: TdSite"),
    "key of another site": (seed(home="eu01"), "API key: TdSite=eu01"),
    "key that nobody knows": (seed(home=None), "API key: Issue a new one"),
    "something else as key": (seed(key="my password"), "API key: hexadecimal"),
    "key that may not import": (seed(may_import=False), "import permission: shop"),
}


@pytest.mark.parametrize("name", SEEDED)
def test_a_fault_is_reported_with_its_remedy(here: Surroundings, name: str) -> None:
    """Each cause of a failed deploy is reported once, and nothing else is. The operator can fix all of them before the first deploy."""
    change, wanted = SEEDED[name]
    change(here)
    told = sorted(here.said())
    faults = sorted(one.partition(": ") for one in wanted.split("; "))

    assert [what for what, _, _ in faults] == [what for what, _ in told]
    for what, _, said in faults:
        assert any(said in text for found, text in told if found == what), said


FEW, RESERVED = {"concurrency": 10}, {"WorkerConcurrency": "50", "IngestConcurrency": "500"}
WARNED: list[tuple[Seed, str, str]] = [
    (seed(**FEW), "concurrency", "Set ThrottlingRate=100 ThrottlingBurst=5. .*L-B99A9384"),
    (seed(**FEW, given={"ThrottlingBurst": "5"}), "concurrency", "of which the API leaves 5"),
    (seed(given={"ThrottlingBurst": "501"}), "concurrency", "Set ThrottlingRate=10000 ThrottlingBurst=500."),
    (seed(given={"ThrottlingBurst": "501"} | RESERVED), "concurrency", ""),
    (seed(), "concurrency", ""),
    (seed(given=PROD), "concurrency", "IngestConcurrency=500 WorkerConcurrency=100"),  # fits quota and shards
    (seed(given=PROD | {"MaxShards": "100"}), "concurrency", "WorkerConcurrency=200."),
    (seed(given=PROD | RESERVED), "concurrency", ""),
    (seed(distributions=[]), "CloudFront", "cloudfront-verification"),
    (seed(given={"StreamMode": "AUTO"}, shards=190), "stream", "cannot grow to MaxShards=16"),
    (seed(), "alarms", "Set AlarmEmail"),
    (seed(given={"AlarmEmail": "a@example.com"}), "alarms", ""),  # the doctor looks whether it is confirmed
]


@pytest.mark.parametrize(("change", "what", "said"), WARNED)
def test_what_may_succeed_is_a_warning(here: Surroundings, change: Seed, what: str, said: str) -> None:
    """Such as the limits of a new account, which has ten concurrent invocations and no access to CloudFront yet."""
    change(here)
    warnings = dict(here.said("warning"))

    assert bool(said) == (what in warnings)
    assert re.search(said, warnings.get(what, ""))
    assert [] == here.said()


def test_a_check_without_an_answer_is_unknown(here: Surroundings) -> None:
    """A missing read permission, or a resolver that is down, fails no deploy and proves nothing; the other checks still run."""
    here.account.unreadable = {"SimulatePrincipalPolicy", "GetAccountSettings", "DescribeLimits"}
    here.given(**DOMAIN)
    here.dns.lookup = lambda _name, _kind: None  # type: ignore[method-assign]  # a resolver that is away

    assert {"rights", "concurrency", "stream", "delegation"} == dict(here.said("unknown")).keys()
    assert [] == here.said()


def test_the_preflight_makes_exactly_its_listed_calls(here: Surroundings) -> None:
    """The deployer's policy allows these, so an operator who may deploy may run the preflight too."""
    here.given(**EXISTING, **DOMAIN, **NAMED)
    here.account.topics[TOPIC] = []
    here.account.secrets[SECRET] = {"SecretString": TD_KEY}
    here.key = ""
    here.findings()
    other = Surroundings(plan=replace(here.plan, given={}))
    other.account.add_stack("sluice-dev", "UPDATE_COMPLETE", AlarmEmail="a@example.com", Network="external")
    other.given(Network="managed")
    other.findings()
    asked = (here.account.calls | other.account.calls) - {"sts:GetCallerIdentity"}

    listed = [one for one in deployer.policy("deploy")["Statement"] if one["Sid"].startswith("Preflight")]
    assert {action for one in listed for action in one["Action"]} == asked


def test_the_plan_matches_what_sam_would_deploy(tmp_path: Path) -> None:
    """Stack name, region and parameters come from the section of samconfig.toml. Options override them."""
    config = tmp_path / "samconfig.toml"
    config.write_text(
        "version = 0.1\n[prod.global.parameters]\nstack_name = 'sluice-prod'\nparameter_overrides = 'Stage=prod A=\"b c\"'\n"
        "[prod.deploy.parameters]\nregion = 'eu-central-1'\n"
    )
    plan = planned(config, "prod", "", "", "")
    other = planned(config, "prod", "us-east-1", "other", "Stage=stg")

    assert Deployment("sluice-prod", "eu-central-1", {"Stage": "prod", "A": "b c"}, plan.build) == plan
    assert Deployment("other", "us-east-1", {"Stage": "stg"}, plan.build) == other
    with pytest.raises(Failure, match="no stack_name"):
        planned(config, "dev", "", "", "")


@pytest.mark.parametrize("environment", ["default", "dev", "stg", "prod"])
def test_the_stages_of_samconfig_have_no_fault(here: Surroundings, environment: str) -> None:
    """A sound account can deploy them unchanged."""
    here.plan = replace(planned(ROOT / "samconfig.toml", environment, REGION, "", ""), build=here.plan.build)

    assert [] == here.said()


def test_the_commands_find_what_a_deploy_needs(
    here: Surroundings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`preflight` exits with 3 if there is a fault; `setup --before` finds the same, and says the cost. samconfig.toml names the stack."""
    session = SimpleNamespace(
        region_name=REGION,
        get_available_regions=lambda _service: [REGION],
        client=lambda service, region_name, config: config and here.account.client(service, region_name),
    )
    run = partial(CliRunner(mix_stderr=False).invoke, main)
    asks = ["setup", "--before", "--config-file", str(ROOT / "samconfig.toml")]
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "")
    nowhere = run(asks, input=TD_KEY)
    monkeypatch.setattr(planning, "td_client", here.sites.site)
    monkeypatch.setattr(planning, "session_in", lambda _: session)
    with monkeypatch.context() as anonymous:
        anonymous.setattr(here.account, "client", Mock(side_effect=NoCredentialsError))
        nobody = run(asks, input=TD_KEY)
    assert nowhere.stderr.startswith("Error: no region")  # before it asks for the key
    assert nobody.stderr.startswith("Error: no AWS credentials")
    monkeypatch.setenv("TD_API_KEY", TD_KEY)
    monkeypatch.setenv("SLUICE_STACK", "sluice-prod")
    environment = ["--config-file", str(ROOT / "samconfig.toml"), "--region", REGION]
    wrong = ["--parameter-overrides", "StreamMode=PROVISIONED TdSite=eu01"]
    result = run(["preflight", *environment, "--json", *wrong])
    found = json.loads(result.stdout)
    assert (3, False) == (result.exit_code, found["ready"])
    assert "Set TdSite=us01." in [one["advice"] for one in found["findings"]]

    (tmp_path / "key").write_text(f"{TD_KEY}\n")
    key = ["--td-key-file", str(tmp_path / "key"), "--database", "shop"]
    plain, as_json = (run(["setup", "--before", *environment, *key, *more]) for more in ([], ["--json"]))
    said = json.loads(as_json.stdout)
    usd, states = said["usd_per_month"], {one["what"]: one["state"] for one in said["findings"]}

    assert (0, 0, True) == (plain.exit_code, as_json.exit_code, said["ready"]), plain.output
    assert ("ok", "ok") == (states["API key"], states["import permission"])
    assert 0 < usd["idle"] < usd["expected"] < usd["worst"]
    assert "cost: About $" in plain.output
    assert "sluice-dev can be deployed.\nNext: `sam deploy` with the same options" in plain.output
    assert f"`--stack` here), then `sluice setup --stack sluice-dev --region {REGION}`." in plain.output
    assert TD_KEY not in plain.output
