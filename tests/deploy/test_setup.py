"""`sluice deploy` from the wheel, into an account without Sluice, with the documented permissions and nothing else, to the first row."""

import json
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis

from doubles.treasure_data import API_KEY
from local.functions import treasure_data_at
from local.lambda_runtime import ARCHITECTURE
from ops.deploy import deployer
from ops.deploy.code_bucket import CodeBucket
from release import artifact
from tests.support import command_rights, installation
from tests.support.emulation import Stack, remove
from tests.support.installation import Installation
from tests.support.sam import ROOT
from tests.support.sluice import until

pytestmark = pytest.mark.xdist_group("deploy")

NAME = "sluice-stg"
ACCOUNT = "000000000000"


def _without_unset(policy: Mapping[str, Any]) -> dict[str, Any]:
    """Return a policy for a stage that sets none of the parameters that it names; without conditions, as the emulator's simulation knows no context."""
    statements = [
        {key: value for key, value in one.items() if key != "Condition"}
        for one in policy["Statement"]
        if "<" not in one["Resource"]
    ]
    return {**policy, "Statement": statements}


class Operator:
    """Somebody with the wheel, a Treasure Data key, and an IAM user that has the policies of docs/deploying.md."""

    def __init__(self, stack: Stack, installed: Installation) -> None:
        self.other = stack
        self.emulator = stack.emulator
        self.installed = installed
        self.key_file = installed.home / "key"
        self.key_file.write_text(API_KEY)
        iam = self.emulator.client("iam")
        iam.create_user(UserName="operator")
        policies = {part: deployer.policy(part) for part in deployer.PARTS}
        policies["setup"] = command_rights.policy(["setup"], is_deployed=False)
        for name, policy in policies.items():
            text = json.dumps(_without_unset(policy)).replace("STACK", NAME)
            iam.put_user_policy(UserName="operator", PolicyName=name, PolicyDocument=text)
        made = iam.create_access_key(UserName="operator")["AccessKey"]
        self.variables = self.emulator.environment | {
            "AWS_ACCESS_KEY_ID": made["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"],
        }
        del self.variables["HOME"]

    def overrides(self) -> str:
        """Return the parameters of the stage."""
        given = {"StreamMode": "PROVISIONED", "SdkHosting": "off", "Architecture": ARCHITECTURE}
        given |= {"Stage": "stg", **treasure_data_at(self.other.destination.url)}
        return " ".join(f"{name}={value}" for name, value in given.items())

    def words(self, *more: str) -> list[str]:
        """Return the words of a command line that asks nothing."""
        stage = ["--config-env", "stg", "--td-key-file", str(self.key_file)]
        return ["-m", "ops", *more, *stage, "--yes", "--json"]

    def run(self, *more: str) -> Any:
        """Run a command line that asks nothing, and return what it prints."""
        done = self.installed.run(*self.words(*more), **self.variables)
        assert 0 == done.returncode, f"{done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def rows(self) -> list[Any]:
        """Return the first rows."""
        return self.other.destination.rows("first_events", "sluice_setup")


@pytest.fixture
def operator(stack: Stack, artifacts: Path, tmp_path: Path) -> Iterator[Operator]:
    """An operator before the deploy. Afterwards `sluice remove` removes the stack and the bucket of its code."""
    version = installation.PROJECT["version"]
    content = artifact.pack(artifacts, ARCHITECTURE, version, ROOT)
    made = installation.wheel(tmp_path, {f"sluice-{version}-{ARCHITECTURE}.zip": content})
    with redis.Redis.from_url(stack.redis_url) as client:  # emulated stacks share it, and names may return
        for key in client.scan_iter(f"{NAME}-*"):
            client.delete(key)
    operator = Operator(stack, Installation(tmp_path, made))
    yield operator

    remove(stack.emulator, NAME)
    bucket = CodeBucket(stack.emulator.client("s3"), NAME, ACCOUNT, "us-east-1")
    assert not bucket.is_there()
    iam = stack.emulator.client("iam")
    for one in iam.list_access_keys(UserName="operator")["AccessKeyMetadata"]:
        iam.delete_access_key(UserName="operator", AccessKeyId=one["AccessKeyId"])
    for name in iam.list_user_policies(UserName="operator")["PolicyNames"]:
        iam.delete_user_policy(UserName="operator", PolicyName=name)
    iam.delete_user(UserName="operator")


def test_one_command_leads_from_an_account_without_sluice_to_the_first_row(operator: Operator) -> None:
    """It is stopped while CloudFormation works and started again; it ends with a row. Running it once more changes nothing."""
    cloudformation = operator.emulator.client("cloudformation")
    line = ("deploy", "--parameter-overrides", operator.overrides(), "--database", "first_events")

    def is_begun() -> bool:
        try:
            return bool(cloudformation.describe_stacks(StackName=NAME)["Stacks"])
        except cloudformation.exceptions.ClientError:
            return False

    with operator.installed.start(*operator.words(*line), **operator.variables) as running:
        until(lambda: is_begun() or running.poll() is not None)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=120)
    assert 130 == running.returncode, errors
    assert "`sluice deploy` waits for what CloudFormation has begun" in errors

    said = operator.run(*line)
    (row,) = operator.rows()
    assert "first_events" == said["account"]
    assert {"ok"} == {one["state"] for one in said["steps"]}
    assert row["event_id"].startswith("sluice-setup-")
    accounts = (operator.installed.home / "accounts.yaml").read_text()
    assert "first_events:\n  database: first_events\n" == accounts

    assert said["key"] == operator.run("setup")["key"]
    assert said["key"] == operator.run("deploy")["key"]
    assert 1 == len(operator.rows())
    words = operator.words("deploy", "--parameter-overrides", "ArchiveDays=1")
    wrong = operator.installed.run(*words, **operator.variables)
    assert (3, True) == (wrong.returncode, "docs/deploying.md#parameters" in wrong.stderr), wrong.stderr
    words = ["-m", "ops", "status", "--stack", operator.other.name]
    denied = operator.installed.run(*words, **operator.variables)
    assert "your credentials do not allow" in denied.stderr, denied.stdout  # the emulator enforces policies
