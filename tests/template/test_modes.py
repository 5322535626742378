"""Resources and their connections in each mode: three networks, with and without domain and SDK hosting."""

from itertools import product

import pytest

from ops.template import sluice_template
from tests.support.modes import DATA, Mode
from tests.support.sam import FUNCTIONS, properties, run, transformed

MANAGED = {"Network": "managed"}
EXISTING = {"Network": "existing", "SubnetIds": "subnet-0a,subnet-1a", "SecurityGroupIds": "sg-0a"}
EXTERNAL = {"Network": "external"}
DOMAIN = {"DomainName": "events.example.com", "HostedZoneId": "Z0123456789ABC"}
SDK = {"SdkHosting": "on"}
CHOICES = product((MANAGED, EXISTING, EXTERNAL), (DOMAIN, {}), (SDK, {"SdkHosting": "off"}))
MODES = [network | domain | sdk for network, domain, sdk in CHOICES]

ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:redis-a1b2c3"
IN_MANAGED = {"Redis", "RedisUserGroup", "RedisReader", "RedisWriter"}
WITH_DOMAIN = {"Certificate", "ApiDomain", "ApiMapping", "ApiRecord"}
WITH_SDK = {"SdkBucket", "SdkBucketPolicy", "SdkAccess", "SdkHeaders", "SdkDistribution"}
ELSEWHERE = {"AlarmTopic", "AlarmTopicPolicy", "AccessLogs"}

# The regions of Treasure Data's sites, in the order of the parameter TdSite, and five more.
REGIONS = (
    *("us-east-1", "ap-northeast-1", "eu-central-1", "ap-northeast-2", "ap-northeast-3"),
    *("us-west-2", "eu-west-1", "ap-southeast-1", "ap-southeast-2", "ca-central-1"),
)


def test_the_template_is_clean_in_every_region_and_mode() -> None:
    """cfn-lint knows what each region supports, and what no mode may refer to because the mode leaves it out."""
    assert (0, "") == run("cfn-lint", "template.yaml", "--regions", *REGIONS)


@pytest.mark.parametrize("chosen", MODES, ids=str)
def test_a_mode_creates_its_resources_and_no_others(chosen: dict[str, str]) -> None:
    """Resources for network, domain and SDK exist only in their modes; all others always do. No rule fails."""
    of_transform = transformed()["Resources"].keys()
    expected = of_transform - (IN_MANAGED | {"RedisUrlSecret"} | WITH_DOMAIN | WITH_SDK | ELSEWHERE)
    expected |= IN_MANAGED if chosen["Network"] == "managed" else {"RedisUrlSecret"}
    expected |= WITH_DOMAIN if "DomainName" in chosen else set()
    expected |= WITH_SDK if chosen["SdkHosting"] == "on" else set()

    assert expected == Mode(chosen).resources().keys()
    assert [] == sluice_template().objections(chosen)


@pytest.mark.parametrize("network", [MANAGED, EXISTING, EXTERNAL], ids=str)
def test_only_an_existing_network_is_joined(network: dict[str, str]) -> None:
    """Worker, sender and administration use its Redis; ingest, drainer and scaler are never in a VPC."""
    mode = Mode(network)
    inside = {name: mode.properties(name).get("VpcConfig") for name in FUNCTIONS}
    config = {name: {"Fn::Split": [",", EXISTING[name]]} for name in ("SecurityGroupIds", "SubnetIds")}
    joined = {"WorkerFunction", "SenderFunction", "AdminFunction"} if network == EXISTING else set()

    assert {name: config if name in joined else None for name in FUNCTIONS} == inside


def test_a_move_between_networks_replaces_nothing_that_stores_data() -> None:
    """Stream, queue, table, bucket and secrets have the same properties in all networks; the URL's secret comes and goes."""
    made = [Mode(network).resources() for network in (MANAGED, EXISTING, EXTERNAL)]
    kept = [
        {name: one for name, one in found.items() if one["Type"] in DATA and name != "RedisUrlSecret"}
        for found in made
    ]

    assert kept[0] == kept[1] == kept[2]


@pytest.mark.parametrize("stream_mode", ["AUTO", "PROVISIONED", "ON_DEMAND"])
def test_only_the_scaler_changes_the_stream(stream_mode: str) -> None:
    """Whatever its mode, the template asks for the same stream, so CloudFormation never resizes it in one call."""
    mode = Mode({"StreamMode": stream_mode, "ShardCount": "3", "MaxShards": "8"})
    stream = mode.properties("Stream")
    variables = mode.properties("ScaleFunction")["Environment"]["Variables"]

    assert ({"StreamMode": "PROVISIONED"}, 1) == (stream["StreamModeDetails"], stream["ShardCount"])
    assert {"STREAM_MODE": stream_mode, "SHARD_COUNT": "3", "MAX_SHARDS": "8"}.items() <= variables.items()
    assert (stream_mode == "AUTO") == ("StreamThrottlesPermission" in mode.resources())


RESERVED = {"SenderFunction": 6, "DrainFunction": 4, "ScaleFunction": 4}
"""The functions that have concurrency of their own where the worker has."""


def test_the_functions_that_deliver_have_concurrency_of_their_own() -> None:
    """A flood of requests takes at most the ingest's share. Without a quota for it, nothing is reserved."""
    mode = Mode({"IngestConcurrency": "500", "WorkerConcurrency": "100"})
    found = {name: mode.properties(name).get("ReservedConcurrentExecutions") for name in FUNCTIONS}
    plain = Mode({})

    assert RESERVED | {"IngestFunction": "500", "WorkerFunction": "100", "AdminFunction": None} == found
    assert [] == [name for name in FUNCTIONS if "ReservedConcurrentExecutions" in plain.properties(name)]


BOUNDARY = "arn:aws:iam::123456789012:policy/boundary"


def test_a_permissions_boundary_limits_every_role() -> None:
    """Organizations let their people create only roles that have one."""
    for given, expected in (({}, None), ({"PermissionsBoundary": BOUNDARY}, BOUNDARY)):
        roles = [one for one in Mode(given).resources().values() if one["Type"] == "AWS::IAM::Role"]
        assert [expected] * 7 == [role["Properties"].get("PermissionsBoundary") for role in roles]


def test_the_managed_redis_has_two_iam_users() -> None:
    """Its endpoint is public, and each function's URL names the user that the function signs in as."""
    mode = Mode(MANAGED)
    cache = mode.properties("Redis")

    assert ("public", "9") == (cache["ConnectionType"], cache["MajorEngineVersion"])
    assert {"Ref": "RedisUserGroup"} == cache["UserGroupId"]
    assert [{"Ref": "RedisReader"}, {"Ref": "RedisWriter"}] == mode.properties("RedisUserGroup")["UserIds"]
    users = {"WorkerFunction": "RedisReader", "SenderFunction": "RedisReader", "AdminFunction": "RedisWriter"}
    for function, user in users.items():
        variables = mode.properties(function)["Environment"]["Variables"]
        assert (
            f"rediss://${{{user}}}@${{Redis.Endpoint.Address}}:${{Redis.Endpoint.Port}}/?cache=${{Redis}}"
            == variables["REDIS_URL"]["Fn::Sub"]
        )
        assert "" == variables["REDIS_URL_SECRET"]
        properties = mode.properties(user)
        assert {"Type": "iam"} == properties["AuthenticationMode"]
        assert properties["UserId"] == properties["UserName"]  # IAM authentication requires it


@pytest.mark.parametrize("network", [EXISTING, EXTERNAL], ids=str)
def test_the_url_of_another_redis_is_in_a_secret(network: dict[str, str]) -> None:
    """The secret is given by its ARN, or is created empty for the operator to fill."""
    given = Mode(network | {"RedisUrlSecretArn": ARN})

    assert "RedisUrlSecret" not in given.resources()
    assert ARN == given.properties("WorkerFunction")["Environment"]["Variables"]["REDIS_URL_SECRET"]
    assert "SecretString" not in Mode(network).properties("RedisUrlSecret")


@pytest.mark.parametrize(
    ("parameters", "objection"),
    [
        ({"RedisUrlSecretArn": ARN}, "RedisUrlSecretArn requires Network existing or external."),
        ({"Network": "existing", "SecurityGroupIds": "sg-0a"}, "Network existing requires SubnetIds."),
        ({"Network": "existing", "SubnetIds": "subnet-0a"}, "Network existing requires SecurityGroupIds."),
        ({"DomainName": "events.example.com"}, "DomainName requires HostedZoneId"),
        ({"TdApiEndpoint": "https://api.example.com"}, "Set both TdImportEndpoint and TdApiEndpoint"),
        (
            {"AlarmEmail": "a@example.com", "AlarmTopicArn": "arn:aws:sns:us-east-1:123456789012:ours"},
            "Set AlarmEmail or AlarmTopicArn, not both.",
        ),
        ({"IngestConcurrency": "500"}, "IngestConcurrency requires WorkerConcurrency"),
    ],
)
def test_conflicting_parameters_are_rejected(parameters: dict[str, str], objection: str) -> None:
    """The rules report the conflict before any resource is created."""
    (said,) = sluice_template().objections(parameters)

    assert said.startswith(objection)


def test_a_domain_needs_one_deploy() -> None:
    """The certificate is validated in the zone, the API uses the name, and an output has the URL."""
    mode = Mode(DOMAIN)
    certificate = mode.properties("Certificate")
    (configuration,) = mode.properties("ApiDomain")["DomainNameConfigurations"]
    of_record = mode.properties("ApiRecord")["AliasTarget"]["DNSName"]

    assert ("DNS", [DOMAIN]) == (certificate["ValidationMethod"], certificate["DomainValidationOptions"])
    assert {"Ref": "Certificate"} == configuration["CertificateArn"]
    assert "TLS_1_2" == configuration["SecurityPolicy"]
    assert {"Ref": "ApiDomain"} == mode.properties("ApiMapping")["DomainName"]
    assert {"Fn::GetAtt": ["ApiDomain", "RegionalDomainName"]} == of_record
    assert "https://events.example.com" == mode.outputs()["ApiUrl"]["Value"]
    assert {"Fn::GetAtt": ["Api", "ApiEndpoint"]} == Mode({}).outputs()["ApiUrl"]["Value"]


def test_any_page_may_load_the_sdk() -> None:
    """Responses allow any origin without credentials and require TLS, and S3 is read with a signature."""
    cors = properties("SdkHeaders")["ResponseHeadersPolicyConfig"]["CorsConfig"]
    distribution = properties("SdkDistribution")["DistributionConfig"]
    behaviour, (origin,) = distribution["DefaultCacheBehavior"], distribution["Origins"]

    assert {"Items": ["*"]} == cors["AccessControlAllowOrigins"]
    assert not cors["AccessControlAllowCredentials"]
    assert {"Ref": "SdkHeaders"} == behaviour["ResponseHeadersPolicyId"]
    assert "redirect-to-https" == behaviour["ViewerProtocolPolicy"]
    assert {"Fn::GetAtt": ["SdkAccess", "Id"]} == origin["OriginAccessControlId"]
    assert {"Fn::GetAtt": ["SdkBucket", "RegionalDomainName"]} == origin["DomainName"]


@pytest.mark.parametrize(
    ("stage", "kind"), [("dev", "AllAtOnce"), ("stg", "AllAtOnce"), ("prod", "Canary10Percent5Minutes")]
)
def test_prod_deploys_the_ingest_as_a_canary(stage: str, kind: str) -> None:
    """CodeDeploy moves the alias, in prod with a canary, and rolls back on an alarm."""
    mode = Mode({"Stage": stage})
    group = mode.properties("IngestFunctionDeploymentGroup")
    alias = mode.resources()["IngestFunctionAliaslive"]

    assert kind in str(group["DeploymentConfigName"])
    assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]
    assert {"Fn::GetAtt": ["DeploymentRole", "Arn"]} == group["ServiceRoleArn"]
    assert "CodeDeployLambdaAliasUpdate" in alias["UpdatePolicy"]


SITES = {"us01": "treasuredata.com", "ap01": "treasuredata.co.jp"}
SITES |= {site: f"{site}.treasuredata.com" for site in ("eu01", "ap02", "ap03")}
OWN_ENDPOINTS = {"TdImportEndpoint": "https://in.example", "TdApiEndpoint": "https://td.example"}


@pytest.mark.parametrize(
    ("given", "of_import", "of_api"),
    [
        *(({"TdSite": site}, f"api-import.{domain}", f"api.{domain}") for site, domain in SITES.items()),
        (OWN_ENDPOINTS, "in.example", "td.example"),
    ],
)
def test_td_site_decides_the_endpoints_not_given(given: dict[str, str], of_import: str, of_api: str) -> None:
    """Every function that calls Treasure Data gets the same."""
    for name in set(FUNCTIONS) - {"IngestFunction", "ScaleFunction"}:
        variables = Mode(given).properties(name)["Environment"]["Variables"]
        assert f"https://{of_import}" == variables["TD_IMPORT_ENDPOINT"]
        assert f"https://{of_api}" == variables["TD_API_ENDPOINT"]
