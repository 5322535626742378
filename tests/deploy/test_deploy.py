"""`sam deploy` of the real template, unmodified, against an emulator of AWS that enforces roles; then the whole way.

What the emulator (ministack) cannot do, so that these tests cannot show it:

- Its mapping of the stream knows no ReportBatchItemFailures, retries, age, batch window or destination: what the
  worker holds is not delivered again. So everything that the worker needs is in place before the first event.
- Its mappings read with rights of their own, not with the function's role. A call of GetRecords names its stream in
  the iterator alone, where the emulator does not look, and so refuses it: the drainer's search is left out here.
- Its functions run in processes of this machine, without Lambda's memory limit, read-only file system or processor;
  tests/runtime shows the same artifacts in Lambda's own runtime.
- Throttling, access logs and encryption at rest are taken but not done. Alarms and CodeDeploy exist in name only, and so does
  the cache: in its place stands a Valkey behind TLS 1.3 with the users of the template, which takes any token for one of them.
"""

import io
import json
import ssl
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import redis

from doubles.treasure_data import API_KEY, Request, Response, Server, TreasureData
from local import valkey
from local.lambda_runtime import ARCHITECTURE
from ops import release
from shared import write_key
from shared.accounts import Account, AccountKeys
from shared.settings import IngestSettings, WorkerSettings
from tests.support.ministack import Ministack
from tests.support.sam import ROOT
from tests.support.tls_front import TlsFront

pytestmark = pytest.mark.xdist_group("deploy")

STACK = "sluice-dev"
EXTERNAL = {"Network": "external", "SdkHosting": "off"}
ARRIVAL_SECONDS = 60


class Destination:
    """Treasure Data's stand-in behind a port, which tells when rows arrive."""

    def __init__(self) -> None:
        self.core = TreasureData()
        self.server = Server(self._handle)
        self._changed = threading.Condition()

    def rows(self, database: str, table: str) -> list[Any]:
        """Return a table's rows once there are some, or none when there are none after a minute."""
        with self._changed:
            self._changed.wait_for(lambda: self.core.rows(database, table), ARRIVAL_SECONDS)
        return self.core.rows(database, table)

    def _handle(self, request: Request) -> Response:
        response = self.core.handle(request)
        with self._changed:
            self._changed.notify_all()
        return response


class Stack:
    """The deployed stack, with everything that it needs.

    Attributes:
        emulator: the AWS that it is in.
        outputs: the stack's.
        destination: the Treasure Data that it sends to.
        redis: where it looks accounts up.
    """

    def __init__(self, emulator: Ministack, destination: Destination, redis_url: str) -> None:
        self.emulator = emulator
        self.outputs = outputs(emulator, STACK)
        self.destination = destination
        self.redis = redis.Redis.from_url(redis_url)
        secrets = emulator.client("secretsmanager")
        secrets.put_secret_value(SecretId=self.outputs["TdApiKeySecret"], SecretString=API_KEY)
        signing = secrets.get_secret_value(SecretId=self.outputs["WriteKeySecret"])["SecretString"]
        self._secret: str = json.loads(signing)["k1"]

    def map_account(self, name: str) -> None:
        """Map an account to the database of its name."""
        keys = AccountKeys(self.outputs["LedgerTable"])
        self.redis.hset(keys.of(name), mapping=Account(name).to_fields())
        self.redis.hset(keys.sentinel, mapping={"at": "0", "count": "1"})

    def send_pixel(self, account: str, table: str, page: str) -> tuple[int, bytes]:
        """Request the pixel from the API and return status and body."""
        key = write_key.sign(account, "k1", self._secret)
        trust = ssl.create_default_context(cafile=str(self.emulator.certificate))
        connection = HTTPSConnection("127.0.0.1", urlsplit(self.emulator.url).port, context=trust)
        try:
            host = {"Host": urlsplit(self.outputs["ApiUrl"]).netloc}
            target = f"/pixel.gif?{urlencode({'k': key, 't': table, 'page': page})}"
            connection.request("GET", target, headers=host)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def invoke(self, function: str, event: dict[str, Any]) -> Any:
        """Invoke a function of the stack and return its answer."""
        answer = self.emulator.client("lambda").invoke(
            FunctionName=self.outputs[function], Payload=json.dumps(event)
        )
        assert "FunctionError" not in answer, self.emulator.log.read_text()
        return json.loads(answer["Payload"].read())

    def sluice(self, *arguments: str) -> Any:
        """Run the `sluice` command on the stack with --json and return what it prints."""
        command = [sys.executable, "-m", "ops.cli", *arguments, "--stack", STACK, "--json"]
        done = subprocess.run(
            command, cwd=ROOT, env=self.emulator.environment, check=False, capture_output=True, text=True
        )
        assert done.returncode in (0, 3), f"{done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def preflight(self, environment: str) -> list[dict[str, str]]:
        """Run `sluice preflight` for a stage, in the external network, and return what it finds."""
        overrides = " ".join(f"{name}={value}" for name, value in {"Stage": environment, **EXTERNAL}.items())
        command = [sys.executable, "-m", "ops.cli", "preflight", "--json", "--region", "us-east-1"]
        command += ["--config-env", environment, "--parameter-overrides", overrides]
        done = subprocess.run(
            command, cwd=ROOT, env=self.emulator.environment, check=False, capture_output=True, text=True
        )
        assert done.returncode in (0, 3), f"{done.stdout}{done.stderr}"
        found: list[dict[str, str]] = json.loads(done.stdout)["findings"]
        return found

    def aside(self) -> list[str]:
        """Return the names of the objects in the bucket."""
        listed = self.emulator.client("s3").list_objects_v2(Bucket=self.outputs["AsideBucket"])
        return [found["Key"] for found in listed.get("Contents", ())]


def sam(emulator: Ministack, *arguments: str, code: int = 0) -> str:
    """Run sam against the emulator and return what it says."""
    command = [str(Path(sys.executable).with_name("sam")), *arguments]
    environment = emulator.environment
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == code, f"{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def deploy(emulator: Ministack, artifacts: Path, stage: str, code: int = 0, **parameters: str) -> str:
    """Deploy the stack of a stage as samconfig.toml has it, with parameters of its own; return what sam says."""
    given = {"Stage": stage, "Architecture": ARCHITECTURE, **parameters}
    command = ["deploy", "--template-file", str(artifacts / "template.yaml"), "--config-env", stage]
    command += ["--config-file", str(ROOT / "samconfig.toml"), "--no-confirm-changeset"]
    overrides = [f"{name}={value}" for name, value in given.items()]
    return sam(emulator, *command, "--parameter-overrides", *overrides, code=code)


def delete(emulator: Ministack, stack: str) -> None:
    """Take a stack down."""
    sam(emulator, "delete", "--stack-name", stack, "--no-prompts", "--region", "us-east-1")


def outputs(emulator: Ministack, stack: str) -> dict[str, str]:
    """Return what a stack puts out."""
    (found,) = emulator.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}


def networks(emulator: Ministack) -> list[str]:
    """Return the VPCs that stacks have made."""
    found = emulator.client("ec2").describe_vpcs()["Vpcs"]
    return [vpc["VpcId"] for vpc in found if not vpc["IsDefault"]]


def _at(treasure_data: str) -> dict[str, str]:
    return {"TdImportEndpoint": treasure_data, "TdApiEndpoint": treasure_data}


@pytest.fixture(scope="module")
def stack(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack, brought up by one deploy as samconfig.toml has it, and taken down by one delete."""
    folder = tmp_path_factory.mktemp("deploy")
    destination = Destination()
    with ExitStack() as parts:
        redis_server, port = valkey.start(folder)
        parts.callback(redis_server.wait, 10)
        parts.callback(redis_server.terminate)
        server = parts.enter_context(destination.server)
        front = parts.enter_context(TlsFront(port, folder))
        emulator = parts.enter_context(Ministack(folder, front.port))
        deploy(emulator, artifacts, "dev", StreamMode="PROVISIONED", **_at(server.url))
        deployed = Stack(emulator, destination, f"redis://127.0.0.1:{port}/0")
        for user in emulator.client("elasticache").describe_users()["Users"]:
            rules = user["AccessString"].split()
            deployed.redis.execute_command("ACL", "SETUSER", user["UserName"], *rules, "nopass")
        parts.callback(deployed.redis.close)
        deployed.map_account("shop")
        yield deployed

        s3 = emulator.client("s3")
        for name in deployed.aside():
            s3.delete_object(Bucket=deployed.outputs["AsideBucket"], Key=name)
        delete(emulator, STACK)
        assert [] == emulator.client("kinesis").list_streams()["StreamNames"]
        assert [] == emulator.client("lambda").list_functions()["Functions"]
        assert [] == networks(emulator)
        assert {deployed.outputs["AsideBucket"], deployed.outputs["SdkBucket"]}.isdisjoint(
            found["Name"] for found in s3.list_buckets()["Buckets"]
        )


def test_a_pixel_becomes_a_row(stack: Stack) -> None:
    """What is requested from the deployed API stands in Treasure Data, once."""
    status, body = stack.send_pixel("shop", "pageviews", "/welcome")

    assert (200, b"GIF89a") == (status, body[:6]), stack.emulator.log.read_text()
    assert ["/welcome"] == [row["page"] for row in stack.destination.rows("shop", "pageviews")]


def test_a_dead_letter_becomes_a_row_by_hand(stack: Stack) -> None:
    """Rows of an account that nobody mapped are set aside, and the redrive delivers them once it is mapped."""
    assert 200 == stack.send_pixel("stray", "pageviews", "/stray")[0]
    # The rows of one visitor arrive in order: what the mapped account sends next is behind them.
    stack.send_pixel("shop", "after_the_stray", "/next")
    assert stack.destination.rows("shop", "after_the_stray")
    (name,) = stack.aside()
    assert name.startswith("aside/stray/pageviews/")

    stack.map_account("stray")
    report = stack.invoke("RedriveFunction", {"kinds": ["dead_letter"]})

    assert {"delivered": 1, "kept": 0, "dead": 0, "dropped": 0, "complete": True} == report
    assert ["/stray"] == [row["page"] for row in stack.destination.rows("stray", "pageviews")]
    assert [] == stack.aside()


def test_a_message_without_an_envelope_is_set_aside(stack: Stack) -> None:
    """The drainer keeps what it cannot read, as a dead letter."""
    message = {
        "messageId": "m-2",
        "receiptHandle": "r-2",
        "body": "not an envelope",
        "attributes": {"SentTimestamp": str(int(time.time() * 1000) - 600_000)},
        "messageAttributes": {},
    }
    assert {"batchItemFailures": []} == stack.invoke("DrainFunction", {"Records": [message]})
    (name,) = stack.aside()
    assert name.startswith("aside/-/-undecodable/")

    report = stack.invoke("RedriveFunction", {"kinds": ["dead_letter"], "decision": "drop"})
    assert {"delivered": 0, "kept": 0, "dead": 0, "dropped": 1, "complete": True} == report
    assert [] == stack.aside()


def test_the_command_works_from_outside(stack: Stack, tmp_path: Path) -> None:
    """Accounts, keys, status and replay find a deployed stack by its name and reach Redis through its function."""
    file = tmp_path / "accounts.yaml"
    file.write_text("shop: {database: shop}\nclub: {database: club}\n")
    stack.sluice("accounts", "apply", str(file))
    key = stack.sluice("keys", "issue", "club")["key"]
    stack.map_account("shop")

    assert {"club", "shop"} <= stack.sluice("accounts", "list")["accounts"].keys()
    assert {"account": "club", "key_id": "k1", "database": "club"} == stack.sluice("keys", "verify", key)
    assert stack.send_pixel("club", "visits", "/club")[0] == 200
    assert ["/club"] == [row["page"] for row in stack.destination.rows("club", "visits")]
    assert 1 == len(stack.sluice("status")["shards"])
    assert stack.sluice("replay")["complete"]
    assert ["/club"] == [row["page"] for row in stack.destination.rows("club", "visits")]


def test_the_command_looks_records_and_redrives_from_outside(stack: Stack, tmp_path: Path) -> None:
    """Doctor, record and redrive do on a deployed stack what they do on the local one; only its API has no address here."""
    stack.map_account("shop")
    assert stack.send_pixel("later", "looked_at", "/later")[0] == 200
    stack.send_pixel("shop", "behind_it", "/next")
    assert stack.destination.rows("shop", "behind_it")
    file = tmp_path / "event.json"
    recorded = stack.sluice("record", "--count", "1", "--scrub", "-o", str(file))
    looked = stack.sluice("doctor", "--no-event")["findings"]
    before = stack.sluice("status")
    stack.map_account("later")
    sent = stack.sluice("redrive", "--kind", "dead", "--reason", "unknown_account")

    assert (1, 1) == (recorded["records"], len(json.loads(file.read_text())["Records"]))
    states = {finding["what"]: finding["state"] for finding in looked}
    well = ("stream", "mapping", "Redis", "Treasure Data", "import permission", "ledger", "bucket", "queue")
    assert dict.fromkeys(well, "ok") == {what: states.get(what) for what in well}, looked
    assert ["later"] == [one["account"] for one in before["aside"]]
    assert 1 == sent.pop("delivered") == sent.pop("selected")
    assert {"kept": 0, "dead": 0, "dropped": 0, "untried": 0, "complete": True} == sent
    assert ["/later"] == [row["page"] for row in stack.destination.rows("later", "looked_at")]


def test_a_managed_redis_needs_no_network_and_no_secret(stack: Stack) -> None:
    """All the ways that these tests go lead through the cache with the functions' own credentials."""
    names = [one["Name"] for one in stack.emulator.client("secretsmanager").list_secrets()["SecretList"]]

    assert [] == networks(stack.emulator)
    assert 2 == len([name for name in names if "WriteKeySecret" in name or "TdApiKeySecret" in name])
    assert [] == [name for name in names if "Redis" in name]


def test_another_stage_comes_changes_and_goes_beside_the_first(stack: Stack, artifacts: Path) -> None:
    """Nothing of `dev` is touched when `stg` is made in another mode, updated by a parameter, and taken down."""
    emulator, function = stack.emulator, stack.emulator.client("lambda")
    zone = emulator.client("route53").create_hosted_zone(Name="example.com", CallerReference="1")[
        "HostedZone"
    ]
    domain = {"DomainName": "events.example.com", "HostedZoneId": zone["Id"].rpartition("/")[2]}
    mode = {"StreamMode": "PROVISIONED", "SnapStart": "on", **EXTERNAL, **domain}

    def variables(name: str, **version: str) -> Any:
        found = function.get_function_configuration(FunctionName=name, **version)
        return found["Environment"]["Variables"]

    def bots() -> str:
        return IngestSettings.from_environment(variables(made["IngestFunction"], Qualifier="live")).bots

    def parked_max_days(of: Mapping[str, str]) -> int:
        return WorkerSettings.from_environment(variables(of["WorkerFunction"])).parked_max_days

    deploy(emulator, artifacts, "stg", **mode)
    made = outputs(emulator, "sluice-stg")
    assert "https://events.example.com" == made["ApiUrl"]
    assert "SdkBucket" not in made
    assert "mark" == bots()

    deploy(emulator, artifacts, "stg", **mode, ParkedMaxDays="3", Bots="drop")
    assert made == outputs(emulator, "sluice-stg")
    assert 3 == parked_max_days(made)
    assert 14 == parked_max_days(stack.outputs)
    assert "drop" == bots()

    delete(emulator, "sluice-stg")
    assert [stack.outputs["StreamName"]] == emulator.client("kinesis").list_streams()["StreamNames"]
    assert stack.send_pixel("shop", "after_the_other", "/still-here")[0] == 200
    assert ["/still-here"] == [row["page"] for row in stack.destination.rows("shop", "after_the_other")]


@pytest.fixture(scope="module")
def released(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a release: what `make package` packs, unpacked."""
    folder = tmp_path_factory.mktemp("release")
    with zipfile.ZipFile(io.BytesIO(release.pack(artifacts, ARCHITECTURE, "1.2.3", ROOT))) as packed:
        packed.extractall(folder)
    return folder / f"sluice-1.2.3-{ARCHITECTURE}"


def test_a_failed_first_deploy_in_prod_leaves_nothing(stack: Stack, artifacts: Path, released: Path) -> None:
    """What was created is deleted, data and all; the preflight says so, and the next deploy, of a release, begins anew."""
    emulator, name = stack.emulator, "sluice-prod"
    cloudformation, before = emulator.client("cloudformation"), _data(emulator)
    wrong = {"DomainName": "events.example.com", "HostedZoneId": "Z0NOTTHERE"}

    def status() -> str:
        (found,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
        return str(found["StackStatus"])

    deploy(emulator, artifacts, "prod", code=1, **EXTERNAL, **wrong)
    assert "ROLLBACK_COMPLETE" == status()
    assert before == _data(emulator)
    findings = {one["what"]: one for one in stack.preflight("prod")}
    assert "delete-stack --stack-name sluice-prod" in findings["stack"]["advice"]

    cloudformation.delete_stack(StackName=name)
    cloudformation.get_waiter("stack_delete_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    assert "ok" == {one["what"]: one for one in stack.preflight("prod")}["stack"]["state"]
    deploy(emulator, released, "prod", **EXTERNAL)
    assert "CREATE_COMPLETE" == status()
    made = outputs(emulator, name)

    delete(emulator, name)
    assert {made["StreamName"], made["LedgerTable"], made["AsideBucket"]} < _data(emulator) - before
    _remove(emulator, made)
    assert before == _data(emulator)


def _data(emulator: Ministack) -> set[str]:
    """Return the names of everything that holds data."""
    secrets = emulator.client("secretsmanager").list_secrets()["SecretList"]
    return {
        *emulator.client("kinesis").list_streams()["StreamNames"],
        *emulator.client("sqs").list_queues().get("QueueUrls", ()),
        *emulator.client("dynamodb").list_tables()["TableNames"],
        *(
            one["Name"]
            for one in emulator.client("s3").list_buckets()["Buckets"]
            if "samclisource" not in one["Name"]
        ),
        *(one["ARN"] for one in secrets if "DeletedDate" not in one),
    }


def _remove(emulator: Ministack, made: Mapping[str, str]) -> None:
    """Delete what prod retains, as docs/deploying.md does."""
    emulator.client("kinesis").delete_stream(StreamName=made["StreamName"])
    emulator.client("sqs").delete_queue(QueueUrl=made["OverflowQueueUrl"])
    emulator.client("dynamodb").delete_table(TableName=made["LedgerTable"])
    emulator.client("s3").delete_bucket(Bucket=made["AsideBucket"])
    for name in ("WriteKeySecret", "TdApiKeySecret", "RedisUrlSecret"):
        emulator.client("secretsmanager").delete_secret(SecretId=made[name])


def test_what_does_not_go_together_is_refused_before_anything_is_made(stack: Stack, artifacts: Path) -> None:
    """The rules of the template stop a deploy and say what is missing."""
    said = deploy(stack.emulator, artifacts, "stg", code=1, Network="existing")

    assert "Network existing requires SubnetIds" in said
    listed = stack.emulator.client("cloudformation").list_stacks()["StackSummaries"]
    assert {STACK} == {
        one["StackName"]
        for one in listed
        if one["StackName"].startswith("sluice") and not one["StackStatus"].startswith(("DELETE", "REVIEW"))
    }


def test_the_sdk_is_published_where_the_stack_hosts_it(stack: Stack, tmp_path: Path) -> None:
    """Scripts go into the stack's bucket, to be cached for ever; a second time they are there already."""
    files = {"sluice.js": {"path": "0.1.0/sluice.js", "integrity": "sha384-x"}}
    (tmp_path / "manifest.json").write_text(json.dumps({"version": "0.1.0", "files": files}))
    for name in ("sluice.js", "sluice.d.ts", "snippet.html"):
        (tmp_path / name).write_text("0;")
    first = stack.sluice("sdk", "publish", "--folder", str(tmp_path))
    second = stack.sluice("sdk", "publish", "--folder", str(tmp_path))
    s3, bucket = stack.emulator.client("s3"), stack.outputs["SdkBucket"]
    script = s3.get_object(Bucket=bucket, Key="0.1.0/sluice.js")
    for name in first["objects"]:
        s3.delete_object(Bucket=bucket, Key=name)

    assert first["objects"] == first["put"]
    assert [name for name in first["put"] if not name.startswith("0.1.0/")] == second["put"]
    assert "public, max-age=31536000, immutable" == script["CacheControl"]
    assert "text/javascript; charset=utf-8" == script["ContentType"]
    assert stack.outputs["SdkUrl"] == first["url"]
