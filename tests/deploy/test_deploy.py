"""`sam deploy` of the unmodified template to an AWS emulator that enforces roles, and the whole pipeline on it.

Limits of the emulator (ministack), and so of these tests:

- Its event source mapping ignores retry limits, record age, batch window and destination, and reads with its own rights.
- Its functions run as processes of this machine, without Lambda's memory limit, read-only file system or processor;
  tests/runtime runs the same artifacts in Lambda's own runtime.
- It accepts settings for throttling, access logs and encryption at rest but ignores them. Alarms, CodeDeploy and the cache
  exist in name only. A Valkey behind TLS 1.3 replaces the cache. It has the template's users and accepts any token for them.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from shared.settings import IngestSettings, WorkerSettings
from tests.support.emulation import EXTERNAL, Stack, deploy, outputs, remove
from tests.support.ministack import Ministack

pytestmark = pytest.mark.xdist_group("deploy")


def test_the_commands_work_on_a_deployed_stack(stack: Stack, tmp_path: Path) -> None:
    """They reach Redis through the stack's function; the doctor sends no event, because the emulated API has no address."""
    stack.map_account("shop")
    stack.put("later", "looked_at", "/later")
    assert [("later", "unknown_account")] == stack.dead()
    file = tmp_path / "event.json"
    recorded = stack.sluice("record", "--count", "1", "--scrub", "-o", str(file))
    states = {found["what"]: found["state"] for found in stack.sluice("doctor", "--no-event")["findings"]}
    before = stack.sluice("status")
    accounts = tmp_path / "accounts.yaml"
    accounts.write_text("shop: {database: shop}\nlater: {database: later}\n")
    stack.sluice("accounts", "apply", str(accounts), "--yes")
    key = stack.sluice("keys", "issue", "later")["key"]
    checked = stack.sluice("keys", "verify", key)
    sent = stack.sluice("redrive", "--kind", "dead", "--reason", "unknown_account")

    assert (1, 1) == (recorded["records"], len(json.loads(file.read_text())["Records"]))
    well = ("stream", "mapping", "Redis", "Treasure Data", "import permission", "ledger", "bucket", "queue")
    assert dict.fromkeys(well, "ok") == {what: states.get(what) for what in well}, states
    assert {"later": 1} == {one["account"]: one["rows"] for one in before["rows"] if one["kind"] == "dead"}
    assert 1 == len(before["shards"])
    assert {"account": "later", "key_id": "k1", "database": "later", "not_checked": ""} == checked
    assert 1 == sent.pop("delivered") == sent.pop("selected")
    assert {True: 1} == Counter(value for value in sent.values() if value)
    assert ["/later"] == [row["page"] for row in stack.destination.rows("later", "looked_at")]
    assert stack.sluice("replay")["complete"]
    assert 1 == len(stack.destination.rows("later", "looked_at"))


def test_a_second_stage_does_not_affect_the_first(stack: Stack, uploaded: Path) -> None:
    """`dev` is unchanged while `stg` is created in another mode, updated by a parameter and deleted."""
    emulator, function = stack.emulator, stack.emulator.client("lambda")
    zone = emulator.client("route53").create_hosted_zone(Name="example.com", CallerReference="1")
    zone_id = zone["HostedZone"]["Id"].rpartition("/")[2]
    domain = {"DomainName": "events.example.com", "HostedZoneId": zone_id}
    mode = {"StreamMode": "PROVISIONED", **EXTERNAL, **domain}

    def variables(name: str, **version: str) -> Any:
        found = function.get_function_configuration(FunctionName=name, **version)
        return found["Environment"]["Variables"]

    def bots() -> str:
        return IngestSettings.from_environment(variables(made["IngestFunction"], Qualifier="live")).bots

    def archive_days(of: dict[str, str]) -> int:
        return WorkerSettings.from_environment(variables(of["WorkerFunction"])).archive_days

    deploy(emulator, uploaded, "stg", **mode)
    made = outputs(emulator, "sluice-stg")
    assert "https://events.example.com" == made["ApiUrl"]
    assert "SdkBucket" not in made
    assert "mark" == bots()

    more = {"StreamMode": "ON_DEMAND", "ShardCount": "24", "ArchiveDays": "3", "Bots": "drop"}
    more |= {"IngestConcurrency": "300", "WorkerConcurrency": "100"}
    deploy(emulator, uploaded, "stg", **mode | more)
    assert made == outputs(emulator, "sluice-stg")
    assert 3 == archive_days(made)
    assert 30 == archive_days(stack.outputs)
    assert "drop" == bots()

    remove(emulator, "sluice-stg")
    assert [stack.outputs["StreamName"]] == emulator.client("kinesis").list_streams()["StreamNames"]
    assert stack.send_pixel("shop", "after_the_other", "/still-here")[0] == 200
    assert ["/still-here"] == [row["page"] for row in stack.destination.rows("shop", "after_the_other")]


def test_a_failed_first_deploy_in_prod_leaves_no_data(stack: Stack, uploaded: Path) -> None:
    """The rollback deletes every data store. The preflight then says to delete the stack."""
    emulator, name = stack.emulator, "sluice-prod"
    before = _data(emulator)
    wrong = {"DomainName": "events.example.com", "HostedZoneId": "Z0NOTTHERE"}

    deploy(emulator, uploaded, "prod", code=1, **EXTERNAL, **wrong)
    cloudformation = emulator.client("cloudformation")
    (found,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
    findings = {one["what"]: one for one in stack.preflight("prod")}
    cloudformation.delete_stack(StackName=name)

    assert "ROLLBACK_COMPLETE" == found["StackStatus"]
    assert before == _data(emulator)
    assert "delete-stack --stack-name sluice-prod" in findings["stack"]["advice"]


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
