"""A release, deployed with the calls of `aws cloudformation package` and `deploy`, and moved between networks by updates.

The emulator does not put functions into VPCs. tests/template/test_modes.py shows that they join the subnets.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.deploy.change_set import ChangeSet
from shared.clock import SystemClock
from tests.support.emulation import Stack, endpoints, remove
from tests.support.ministack import Ministack

pytestmark = pytest.mark.xdist_group("deploy")

NAME = "sluice-stg"
BUCKET = "my-releases"
DATA = ("StreamName", "OverflowQueueUrl", "LedgerTable", "DataBucket", "WriteKeySecret", "TdApiKeySecret")


def package(emulator: Ministack, folder: Path) -> str:
    """Upload a release's code and a template that points to it. Return the template's URL."""
    s3 = emulator.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    template = yaml.safe_load((folder / "template.yaml").read_text())
    for resource in template["Resources"].values():
        if file := resource.get("Properties", {}).get("CodeUri"):
            resource["Properties"]["CodeUri"] = f"s3://{BUCKET}/{_upload(s3, (folder / file).read_bytes())}"
    plain = json.loads(
        json.dumps(template)
    )  # with the SAM CLI imported, PyYAML loads ordered dictionaries, which it cannot dump
    key = _upload(s3, yaml.safe_dump(plain, sort_keys=False).encode(), ".template")
    return f"{emulator.url}/{BUCKET}/{key}"


def _upload(s3: Any, content: bytes, suffix: str = "") -> str:
    key = hashlib.md5(content, usedforsecurity=False).hexdigest() + suffix
    s3.put_object(Bucket=BUCKET, Key=key, Body=content)
    return key


class Moving:
    """A stack that is created from a release and then moved."""

    def __init__(self, stack: Stack, released: Path) -> None:
        self.dev = stack
        self.emulator = stack.emulator
        self._template = package(stack.emulator, released)
        self._count = 0

    def deploy(self, **parameters: str) -> bool:
        """Create the stack, or update it with other parameters, as `aws cloudformation deploy` does."""
        self._count += 1
        change = ChangeSet(self.emulator.client("cloudformation"), NAME, SystemClock(), 0.3)
        return change.deploy(f"c{self._count}", parameters, self._template)

    def stack(self) -> Stack:
        """Return the stack as it is now."""
        return Stack(self.emulator, self.dev.destination, self.dev.redis_url, NAME)


@pytest.fixture
def moving(stack: Stack, released: Path) -> Iterator[Moving]:
    """A stack created from a release with the network `external`. It is deleted after the test."""
    made = Moving(stack, released)
    address = endpoints(stack.destination.server.url)
    made.deploy(Stage="stg", Network="external", SdkHosting="off", StreamMode="PROVISIONED", **address)
    yield made

    remove(stack.emulator, NAME)
    s3 = stack.emulator.client("s3")
    for one in s3.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
        s3.delete_object(Bucket=BUCKET, Key=one["Key"])
    s3.delete_bucket(Bucket=BUCKET)


def test_a_release_moves_between_networks(moving: Moving) -> None:
    """No resource that stores data is replaced, and events become rows in each network."""
    began = moving.stack()
    secrets = moving.emulator.client("secretsmanager")
    secrets.put_secret_value(SecretId=began.outputs["RedisUrlSecret"], SecretString=moving.dev.redis_url)
    began.map_account("shop")
    assert began.send_pixel("shop", "moving", "/external")[0] == 200
    assert ["/external"] == [row["page"] for row in began.destination.rows("shop", "moving")]
    assert not moving.deploy()

    ec2 = moving.emulator.client("ec2")
    (subnet, *_) = ec2.describe_subnets()["Subnets"]
    (group, *_) = ec2.describe_security_groups()["SecurityGroups"]
    moving.deploy(Network="existing", SubnetIds=subnet["SubnetId"], SecurityGroupIds=group["GroupId"])
    assert "" == moving.stack().variables("WorkerFunction")["REDIS_URL"]
    assert began.send_pixel("shop", "moving_in", "/existing")[0] == 200
    assert ["/existing"] == [row["page"] for row in began.destination.rows("shop", "moving_in")]

    moving.deploy(Network="managed", SubnetIds="", SecurityGroupIds="")
    assert "?cache=" in moving.stack().variables("WorkerFunction")["REDIS_URL"]
    assert "RedisUrlSecret" not in moving.stack().outputs
    assert began.send_pixel("shop", "moving_on", "/managed")[0] == 200
    assert ["/managed"] == [row["page"] for row in began.destination.rows("shop", "moving_on")]

    moving.deploy(Network="external")
    ended = moving.stack()
    secrets.put_secret_value(SecretId=ended.outputs["RedisUrlSecret"], SecretString=moving.dev.redis_url)
    assert ended.send_pixel("shop", "moving_back", "/external")[0] == 200
    assert ["/external"] == [row["page"] for row in ended.destination.rows("shop", "moving_back")]
    assert {name: began.outputs[name] for name in DATA} == {name: ended.outputs[name] for name in DATA}
