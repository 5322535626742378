"""Resources and their connections in each mode: three networks, with and without domain and SDK hosting."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.support.modes import Mode
from tests.support.sam import FUNCTIONS, run, transformed

NETWORKS = {
    "managed": {"Network": "managed"},
    "existing": {
        "Network": "existing",
        "SubnetIds": "subnet-0a1b2c3d,subnet-1a1b2c3d",
        "SecurityGroupIds": "sg-0a1b2c3d",
    },
    "external": {"Network": "external"},
}
DOMAINS = {"domain": {"DomainName": "events.example.com", "HostedZoneId": "Z0123456789ABC"}, "no domain": {}}
SDKS = {"sdk": {"SdkHosting": "on"}, "no sdk": {"SdkHosting": "off"}}
MODES = {
    ", ".join(names): NETWORKS[names[0]] | DOMAINS[names[1]] | SDKS[names[2]]
    for names in product(NETWORKS, DOMAINS, SDKS)
}

IN_MANAGED = {"Redis", "RedisUserGroup", "RedisReader", "RedisWriter"}
IN_AUTO = {"StreamThrottlesPermission"}
WITH_DOMAIN = {"Certificate", "ApiDomain", "ApiMapping", "ApiRecord"}
WITH_SDK = {"SdkBucket", "SdkBucketPolicy", "SdkAccess", "SdkHeaders", "SdkDistribution"}
ELSEWHERE = {"AlarmTopic", "AlarmTopicPolicy", "AccessLogs"}


@pytest.mark.parametrize("name", MODES)
def test_a_mode_creates_its_resources_and_no_others(name: str) -> None:
    """Resources for network, domain and SDK exist only in their modes; all others always do."""
    optional = IN_MANAGED | {"RedisUrlSecret"} | WITH_DOMAIN | WITH_SDK | ELSEWHERE
    chosen = MODES[name]
    expected = transformed()["Resources"].keys() - optional
    expected |= IN_MANAGED if chosen["Network"] == "managed" else {"RedisUrlSecret"}
    expected |= WITH_DOMAIN if "DomainName" in chosen else set()
    expected |= WITH_SDK if chosen["SdkHosting"] == "on" else set()

    assert expected == Mode(chosen).resources().keys()


@pytest.mark.parametrize("name", MODES)
def test_a_mode_has_everything_it_refers_to(name: str) -> None:
    """No resource or output refers to one that the mode leaves out, and no rule fails."""
    mode = Mode(MODES[name])

    assert [] == mode.dangling()
    assert [] == mode.refusals()


def test_every_mode_is_clean(tmp_path: Path) -> None:
    """cfn-lint reports nothing about the resources of any mode."""
    paths = []
    for number, chosen in enumerate(MODES.values()):
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_text(json.dumps(Mode(chosen).template()))

    assert (0, "") == run("cfn-lint", *map(str, paths))


@pytest.mark.parametrize("network", NETWORKS)
def test_only_an_existing_network_is_joined(network: str) -> None:
    """Worker, redrive and administration use its Redis; ingest, drainer and scaler are never in a VPC."""
    mode = Mode(NETWORKS[network])
    inside = {name for name in FUNCTIONS if "VpcConfig" in mode.properties(name)}

    assert inside == (
        {"WorkerFunction", "SenderFunction", "AdminFunction"} if network == "existing" else set()
    )


@pytest.mark.parametrize("stream_mode", ["AUTO", "PROVISIONED", "ON_DEMAND"])
def test_only_the_scaler_changes_the_stream(stream_mode: str) -> None:
    """Whatever its mode, the template asks for the same stream, so CloudFormation never resizes it in one call."""
    mode = Mode({"StreamMode": stream_mode, "ShardCount": "3", "MaxShards": "8"})
    stream, variables = (
        mode.properties("Stream"),
        mode.properties("ScaleFunction")["Environment"]["Variables"],
    )

    assert ({"StreamMode": "PROVISIONED"}, 1) == (stream["StreamModeDetails"], stream["ShardCount"])
    assert {"STREAM_MODE": stream_mode, "SHARD_COUNT": "3", "MAX_SHARDS": "8"}.items() <= variables.items()
    assert (stream_mode == "AUTO") == (mode.resources().keys() >= IN_AUTO)
    assert [] == mode.dangling()


RESERVED = {"SenderFunction": 6, "DrainFunction": 4, "ScaleFunction": 4}
"""The functions that have concurrency of their own where the worker has."""


def test_the_functions_that_deliver_have_concurrency_of_their_own() -> None:
    """A flood of requests takes at most the ingest's share. Without a quota for it, nothing is reserved."""
    mode = Mode({"IngestConcurrency": "500", "WorkerConcurrency": "100"})
    found = {name: mode.properties(name).get("ReservedConcurrentExecutions") for name in FUNCTIONS}
    plain = Mode({})

    assert RESERVED | {"IngestFunction": "500", "WorkerFunction": "100", "AdminFunction": None} == found
    assert [] == [name for name in FUNCTIONS if "ReservedConcurrentExecutions" in plain.properties(name)]


def test_a_limited_ingest_needs_a_worker_with_concurrency_of_its_own() -> None:
    """The rest of the account may otherwise take all that is left."""
    assert [] == Mode({"WorkerConcurrency": "100"}).refusals()
    (said,) = Mode({"IngestConcurrency": "500"}).refusals()
    assert "IngestConcurrency requires WorkerConcurrency" in said


BOUNDARY = "arn:aws:iam::123456789012:policy/boundary"


@pytest.mark.parametrize(
    ("given", "expected"), [({}, {None}), ({"PermissionsBoundary": BOUNDARY}, {BOUNDARY})]
)
def test_a_permissions_boundary_limits_every_role(given: dict[str, str], expected: set[str | None]) -> None:
    """Organizations let their people create only roles that have one."""
    roles = [one for one in Mode(given).resources().values() if one["Type"] == "AWS::IAM::Role"]

    assert expected == {role["Properties"].get("PermissionsBoundary") for role in roles}
    assert 7 == len(roles)


def test_functions_join_an_existing_network() -> None:
    """They use the given subnets and security groups."""
    config = Mode(NETWORKS["existing"]).properties("WorkerFunction")["VpcConfig"]

    assert {
        "SecurityGroupIds": _split("sg-0a1b2c3d"),
        "SubnetIds": _split("subnet-0a1b2c3d,subnet-1a1b2c3d"),
    } == config


def test_the_managed_redis_has_two_iam_users() -> None:
    """Its endpoint is public, and each function's URL names the user that the function signs in as."""
    mode = Mode(NETWORKS["managed"])
    cache = mode.properties("Redis")

    assert ("public", "9") == (cache["ConnectionType"], cache["MajorEngineVersion"])
    assert {"Ref": "RedisUserGroup"} == cache["UserGroupId"]
    assert [{"Ref": "RedisReader"}, {"Ref": "RedisWriter"}] == mode.properties("RedisUserGroup")["UserIds"]
    for function, user in (
        ("WorkerFunction", "RedisReader"),
        ("SenderFunction", "RedisReader"),
        ("AdminFunction", "RedisWriter"),
    ):
        variables = mode.properties(function)["Environment"]["Variables"]
        assert (
            f"rediss://${{{user}}}@${{Redis.Endpoint.Address}}:${{Redis.Endpoint.Port}}/?cache=${{Redis}}"
            == variables["REDIS_URL"]["Fn::Sub"]
        )
        assert "" == variables["REDIS_URL_SECRET"]
        properties = mode.properties(user)
        assert {"Type": "iam"} == properties["AuthenticationMode"]
        assert properties["UserId"] == properties["UserName"]  # IAM authentication requires it


@pytest.mark.parametrize("network", ["existing", "external"])
def test_the_url_of_another_redis_is_in_a_secret(network: str) -> None:
    """The secret is given by its ARN, or is created empty for the operator to fill."""
    arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:redis-a1b2c3"
    given = Mode(NETWORKS[network] | {"RedisUrlSecretArn": arn})

    assert "RedisUrlSecret" not in given.resources()
    assert arn == given.properties("WorkerFunction")["Environment"]["Variables"]["REDIS_URL_SECRET"]
    assert "SecretString" not in Mode(NETWORKS[network]).properties("RedisUrlSecret")


@pytest.mark.parametrize(
    ("parameters", "objection"),
    [
        (
            {"RedisUrlSecretArn": "arn:aws:secretsmanager:x:1:secret:y"},
            "RedisUrlSecretArn requires Network existing or external.",
        ),
        ({"Network": "existing", "SecurityGroupIds": "sg-0a"}, "Network existing requires SubnetIds."),
        ({"Network": "existing", "SubnetIds": "subnet-0a"}, "Network existing requires SecurityGroupIds."),
        ({"DomainName": "events.example.com"}, "DomainName requires HostedZoneId"),
        ({"TdApiEndpoint": "https://api.example.com"}, "Set both TdImportEndpoint and TdApiEndpoint"),
        (
            {"AlarmEmail": "a@example.com", "AlarmTopicArn": "arn"},
            "Set AlarmEmail or AlarmTopicArn, not both.",
        ),
    ],
)
def test_conflicting_parameters_are_rejected(parameters: dict[str, str], objection: str) -> None:
    """The rules report the conflict before any resource is created."""
    (said,) = Mode(parameters).refusals()

    assert said.startswith(objection)


def test_a_domain_needs_one_deploy() -> None:
    """The certificate is validated in the zone, the API uses the name, and an output has the URL."""
    mode = Mode(DOMAINS["domain"])
    certificate = mode.properties("Certificate")

    assert "DNS" == certificate["ValidationMethod"]
    assert [{"DomainName": "events.example.com", "HostedZoneId": "Z0123456789ABC"}] == certificate[
        "DomainValidationOptions"
    ]
    (configuration,) = mode.properties("ApiDomain")["DomainNameConfigurations"]
    assert ({"Ref": "Certificate"}, "TLS_1_2") == (
        configuration["CertificateArn"],
        configuration["SecurityPolicy"],
    )
    assert {
        "ApiId": {"Ref": "Api"},
        "DomainName": {"Ref": "ApiDomain"},
        "Stage": {"Ref": "ApiStage"},
    } == mode.properties("ApiMapping")
    assert {"Fn::GetAtt": ["ApiDomain", "RegionalDomainName"]} == mode.properties("ApiRecord")["AliasTarget"][
        "DNSName"
    ]
    assert "https://events.example.com" == mode.outputs()["ApiUrl"]["Value"]
    assert {"Fn::GetAtt": ["Api", "ApiEndpoint"]} == Mode({}).outputs()["ApiUrl"]["Value"]


def test_any_page_may_load_the_sdk() -> None:
    """Responses allow any origin without credentials and require TLS, and S3 is read with a signature."""
    mode = Mode({})
    cors = mode.properties("SdkHeaders")["ResponseHeadersPolicyConfig"]["CorsConfig"]
    behaviour = _distribution(mode)["DefaultCacheBehavior"]
    (origin,) = _distribution(mode)["Origins"]

    assert ({"Items": ["*"]}, False) == (
        cors["AccessControlAllowOrigins"],
        cors["AccessControlAllowCredentials"],
    )
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

    assert {"Fn::Sub": [f"CodeDeployDefault.Lambda{kind}", {}]} == group["DeploymentConfigName"] or str(
        group["DeploymentConfigName"]
    ).count(kind)
    assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]
    assert {"Fn::GetAtt": ["DeploymentRole", "Arn"]} == group["ServiceRoleArn"]
    assert "CodeDeployLambdaAliasUpdate" in alias["UpdatePolicy"]


@pytest.mark.parametrize(
    ("site", "of_import", "of_api"),
    [
        ("us01", "api-import.treasuredata.com", "api.treasuredata.com"),
        ("ap01", "api-import.treasuredata.co.jp", "api.treasuredata.co.jp"),
        ("eu01", "api-import.eu01.treasuredata.com", "api.eu01.treasuredata.com"),
        ("ap02", "api-import.ap02.treasuredata.com", "api.ap02.treasuredata.com"),
        ("ap03", "api-import.ap03.treasuredata.com", "api.ap03.treasuredata.com"),
    ],
)
def test_td_site_decides_both_endpoints(site: str, of_import: str, of_api: str) -> None:
    """Every function that calls Treasure Data gets the site's endpoints."""
    for name in set(FUNCTIONS) - {"IngestFunction", "ScaleFunction"}:
        variables = Mode({"TdSite": site}).properties(name)["Environment"]["Variables"]
        assert f"https://{of_import}" == variables["TD_IMPORT_ENDPOINT"]
        assert f"https://{of_api}" == variables["TD_API_ENDPOINT"]


def test_treasure_datas_endpoints_can_be_set() -> None:
    """Given endpoints replace both of the site's."""
    given = {"TdImportEndpoint": "https://in.example.com", "TdApiEndpoint": "https://api.example.com"}
    variables = Mode(given).properties("WorkerFunction")["Environment"]["Variables"]

    assert given == {
        "TdImportEndpoint": variables["TD_IMPORT_ENDPOINT"],
        "TdApiEndpoint": variables["TD_API_ENDPOINT"],
    }


def _split(text: str) -> dict[str, Any]:
    return {"Fn::Split": [",", text]}


def _distribution(mode: Mode) -> dict[str, Any]:
    config: dict[str, Any] = mode.properties("SdkDistribution")["DistributionConfig"]
    return config
