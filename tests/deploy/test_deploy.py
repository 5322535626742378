"""`sam deploy` of the unmodified template to an AWS emulator that enforces roles, and the whole pipeline on it.

Limits of the emulator (ministack), and so of these tests:

- Its event source mapping ignores retry limits, record age, batch window and destination, and reads with its own rights.
- Its functions run as processes of this machine, without Lambda's memory limit, read-only file system or processor;
  tests/runtime runs the same artifacts in Lambda's own runtime.
- It accepts settings for throttling, access logs and encryption at rest but ignores them. Alarms, CodeDeploy and the cache
  exist in name only. A Valkey behind TLS 1.3 replaces the cache. It has the template's users and accepts any token for them.
"""

import json
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from shared.settings import IngestSettings, WorkerSettings
from tests.support.emulation import EXTERNAL, STACK, Stack, delete, deploy, networks, outputs, remove
from tests.support.ministack import Ministack

pytestmark = pytest.mark.xdist_group("deploy")

NOTHING = {"delivered": 0, "kept": 0, "dead": 0, "dropped": 0, "copies": 0, "complete": True, "replaced": 0}
"""The sender's answer if nothing was to be sent."""


def test_a_pixel_becomes_a_row(stack: Stack) -> None:
    """A request to the deployed API becomes exactly one row in Treasure Data."""
    status, body = stack.send_pixel("shop", "pageviews", "/welcome")

    assert (200, b"GIF89a") == (status, body[:6]), stack.emulator.log.read_text()
    assert ["/welcome"] == [row["page"] for row in stack.destination.rows("shop", "pageviews")]


def test_the_sender_delivers_dead_rows(stack: Stack) -> None:
    """Rows of an unmapped account are dead. Once the account is mapped, they can be sent."""
    stack.put("stray", "pageviews", "/stray")
    assert [("stray", "unknown_account")] == stack.dead(1)

    stack.map_account("stray")
    report = stack.invoke("SenderFunction", {"kinds": ["dead"]})

    assert NOTHING | {"delivered": 1} == report
    assert ["/stray"] == [row["page"] for row in stack.destination.rows("stray", "pageviews")]
    assert [] == stack.dead()


def test_a_message_without_an_envelope_is_dead(stack: Stack) -> None:
    """The drainer stores an unreadable message, for somebody to look at."""
    message = {
        "messageId": "m-2",
        "receiptHandle": "r-2",
        "body": "not an envelope",
        "attributes": {"SentTimestamp": str(int(time.time() * 1000) - 600_000)},
        "messageAttributes": {},
    }
    assert {"batchItemFailures": []} == stack.invoke("DrainFunction", {"Records": [message]})
    assert [("-", "undecodable")] == stack.dead()

    report = stack.invoke("SenderFunction", {"kinds": ["dead"], "decision": "drop"})
    assert NOTHING | {"dropped": 1} == report
    assert [] == stack.dead()


def test_accounts_keys_status_and_replay_work_on_a_deployed_stack(stack: Stack, tmp_path: Path) -> None:
    """The commands find the stack by its name and reach Redis through its function."""
    file = tmp_path / "accounts.yaml"
    file.write_text("shop: {database: shop}\nclub: {database: club}\n")
    stack.sluice("accounts", "apply", str(file), "--yes")
    key = stack.sluice("keys", "issue", "club")["key"]
    stack.map_account("shop")

    assert {"club", "shop"} <= stack.sluice("accounts", "list")["accounts"].keys()
    checked = stack.sluice("keys", "verify", key)
    assert {"account": "club", "key_id": "k1", "database": "club", "not_checked": ""} == checked
    assert stack.send_pixel("club", "visits", "/club")[0] == 200
    assert ["/club"] == [row["page"] for row in stack.destination.rows("club", "visits")]
    assert 1 == len(stack.sluice("status")["shards"])
    assert stack.sluice("replay")["complete"]
    assert ["/club"] == [row["page"] for row in stack.destination.rows("club", "visits")]


def test_doctor_record_and_redrive_work_on_a_deployed_stack(stack: Stack, tmp_path: Path) -> None:
    """The doctor sends no test event, because the emulated API has no address of its own."""
    stack.map_account("shop")
    stack.put("later", "looked_at", "/later")
    assert stack.dead(1)
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
    assert {"later": 1} == {one["account"]: one["rows"] for one in before["rows"] if one["kind"] == "dead"}
    assert 1 == sent.pop("delivered") == sent.pop("selected")
    assert {True: 1} == Counter(value for value in sent.values() if value)
    assert ["/later"] == [row["page"] for row in stack.destination.rows("later", "looked_at")]


def test_a_managed_redis_needs_no_network_and_no_secret(stack: Stack) -> None:
    """The functions reach the cache with their own credentials in all of these tests."""
    names = [one["Name"] for one in stack.emulator.client("secretsmanager").list_secrets()["SecretList"]]

    assert [] == networks(stack.emulator)
    assert 2 == len([name for name in names if "WriteKeySecret" in name or "TdApiKeySecret" in name])
    assert [] == [name for name in names if "Redis" in name]


def test_a_second_stage_does_not_affect_the_first(stack: Stack, uploaded: Path) -> None:
    """`dev` is unchanged while `stg` is created in another mode, updated by a parameter and deleted."""
    emulator, function = stack.emulator, stack.emulator.client("lambda")
    zone = emulator.client("route53").create_hosted_zone(Name="example.com", CallerReference="1")[
        "HostedZone"
    ]
    domain = {"DomainName": "events.example.com", "HostedZoneId": zone["Id"].rpartition("/")[2]}
    mode = {"StreamMode": "PROVISIONED", **EXTERNAL, **domain}

    def variables(name: str, **version: str) -> Any:
        found = function.get_function_configuration(FunctionName=name, **version)
        return found["Environment"]["Variables"]

    def bots() -> str:
        return IngestSettings.from_environment(variables(made["IngestFunction"], Qualifier="live")).bots

    def archive_days(of: Mapping[str, str]) -> int:
        return WorkerSettings.from_environment(variables(of["WorkerFunction"])).archive_days

    deploy(emulator, uploaded, "stg", **mode)
    made = outputs(emulator, "sluice-stg")
    assert "https://events.example.com" == made["ApiUrl"]
    assert "SdkBucket" not in made
    assert "mark" == bots()

    more = {
        "StreamMode": "ON_DEMAND",
        "ShardCount": "24",
        "IngestConcurrency": "300",
        "WorkerConcurrency": "100",
    }
    deploy(emulator, uploaded, "stg", **mode | more, ArchiveDays="3", Bots="drop")
    assert made == outputs(emulator, "sluice-stg")
    assert 3 == archive_days(made)
    assert 30 == archive_days(stack.outputs)
    assert "drop" == bots()

    remove(emulator, "sluice-stg")
    assert [stack.outputs["StreamName"]] == emulator.client("kinesis").list_streams()["StreamNames"]
    assert stack.send_pixel("shop", "after_the_other", "/still-here")[0] == 200
    assert ["/still-here"] == [row["page"] for row in stack.destination.rows("shop", "after_the_other")]


def test_a_failed_first_deploy_in_prod_leaves_no_data(stack: Stack, uploaded: Path, released: Path) -> None:
    """The rollback deletes every data store. The preflight then says to delete the stack, and a later deploy succeeds."""
    emulator, name = stack.emulator, "sluice-prod"
    cloudformation, before = emulator.client("cloudformation"), _data(emulator)
    wrong = {"DomainName": "events.example.com", "HostedZoneId": "Z0NOTTHERE"}

    def status() -> str:
        (found,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
        return str(found["StackStatus"])

    deploy(emulator, uploaded, "prod", code=1, **EXTERNAL, **wrong)
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
    assert {made["StreamName"], made["LedgerTable"], made["DataBucket"]} < _data(emulator) - before
    _remove(emulator, made)
    assert before == _data(emulator)


def _data(emulator: Ministack) -> set[str]:
    """Return the names of all resources that store data."""
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
    """Delete the resources that prod retains, as in docs/deploying.md."""
    emulator.client("kinesis").delete_stream(StreamName=made["StreamName"])
    emulator.client("sqs").delete_queue(QueueUrl=made["OverflowQueueUrl"])
    emulator.client("dynamodb").delete_table(TableName=made["LedgerTable"])
    emulator.client("s3").delete_bucket(Bucket=made["DataBucket"])
    for name in ("WriteKeySecret", "TdApiKeySecret", "RedisUrlSecret"):
        emulator.client("secretsmanager").delete_secret(SecretId=made[name])


def test_inconsistent_parameters_are_rejected_before_any_resource_is_created(
    stack: Stack, uploaded: Path
) -> None:
    """The template's rules stop the deploy and say what is missing."""
    said = deploy(stack.emulator, uploaded, "stg", code=1, Network="existing")

    assert "Network existing requires SubnetIds" in said
    listed = stack.emulator.client("cloudformation").list_stacks()["StackSummaries"]
    assert {STACK} == {
        one["StackName"]
        for one in listed
        if one["StackName"].startswith("sluice") and not one["StackStatus"].startswith(("DELETE", "REVIEW"))
    }


def test_sdk_publish_uploads_to_the_stack_s_bucket(stack: Stack, tmp_path: Path) -> None:
    """Scripts of a version are cached for ever, and are not uploaded a second time."""
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
