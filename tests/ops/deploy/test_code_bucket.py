"""The release that `sluice deploy` deploys, and the bucket that it is uploaded to."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from doubles.aws_errors import client_error
from ops.deploy.artifact import Artifact
from ops.deploy.code_bucket import CodeBucket
from ops.failure import Failure
from ops.version import sluice_version
from release.artifact import archive

ACCOUNT, REGION = "123456789012", "eu-central-1"
TEMPLATE = {
    "Resources": {
        "Ingest": {
            "Type": "AWS::Serverless::Function",
            "Properties": {"CodeUri": "ingest.zip", "MemorySize": 512},
        },
        "Stream": {"Type": "AWS::Kinesis::Stream"},
    }
}


class S3:
    """S3 with the buckets that it is given, each with its owner."""

    def __init__(self, **owners: str) -> None:
        self.owners = owners
        self.objects: dict[str, bytes] = {}
        self.puts = 0
        self.created: dict[str, Any] = {}
        self.meta = SimpleNamespace(endpoint_url="https://s3.eu-central-1.amazonaws.com")

    def head_bucket(self, Bucket: str, ExpectedBucketOwner: str) -> None:  # noqa: N803 -- boto3's names, here and below
        """Fail if the bucket is not there, or somebody else's."""
        if self.owners.get(Bucket) != ExpectedBucketOwner:
            raise client_error("403" if Bucket in self.owners else "404", "HeadBucket")

    def create_bucket(self, **request: Any) -> None:
        """Create a bucket."""
        self.created = request
        self.owners[request["Bucket"]] = ACCOUNT

    def put_public_access_block(self, **request: Any) -> None:
        """Close the bucket to the public."""
        self.created |= request

    def list_objects_v2(self, Prefix: str, **_: Any) -> Any:  # noqa: N803
        """Count the objects with a prefix."""
        return {"KeyCount": sum(key.startswith(Prefix) for key in self.objects)}

    def put_object(self, Key: str, Body: bytes, **_: Any) -> None:  # noqa: N803
        """Put an object."""
        self.objects[Key] = Body
        self.puts += 1


def bucket_in(s3: S3, region: str = REGION) -> CodeBucket:
    """Return the bucket of the stack `sluice-dev`."""
    client: Any = s3
    return CodeBucket(client, "sluice-dev", ACCOUNT, region)


def test_a_release_is_uploaded_once(tmp_path: Path) -> None:
    """CloudFormation reads template and code from the bucket, where they have their content's name. A missing release is reported."""
    with pytest.raises(
        Failure, match=r"no sluice-.*-arm64\.zip to deploy: in a clone, run `make package` first"
    ):
        Artifact.find("arm64", (tmp_path,))
    template = yaml.safe_dump(TEMPLATE).encode()
    members = {"a/template.yaml": template, "a/ingest.zip": b"code", "a/LICENSE": b""}
    (tmp_path / f"sluice-{sluice_version()}-arm64.zip").write_bytes(archive(members))
    artifact = Artifact.find("arm64", (tmp_path / "nowhere", tmp_path))
    s3 = S3()
    bucket = bucket_in(s3)
    url = bucket.upload(artifact)
    uploaded = json.loads(s3.objects[url.rpartition("/")[2]])["Resources"]
    place = uploaded["Ingest"]["Properties"].pop("CodeUri")

    assert url.startswith(f"https://s3.eu-central-1.amazonaws.com/{bucket.name}/")
    assert b"code" == s3.objects[place.removeprefix(f"s3://{bucket.name}/")]
    assert {"MemorySize": 512} == uploaded["Ingest"]["Properties"]
    assert {"Type": "AWS::Kinesis::Stream"} == uploaded["Stream"]
    assert (url, 2) == (bucket_in(s3).upload(artifact), s3.puts)


def test_a_new_bucket_is_private() -> None:
    """It lies in the stack's region and belongs to the account alone. If somebody else has its name, the message says what to do."""
    s3, in_virginia = S3(), S3()
    bucket = bucket_in(s3)
    assert not bucket.is_there()
    bucket.create()
    bucket_in(in_virginia, "us-east-1").create()

    assert bucket.is_there()
    assert {"LocationConstraint": REGION} == s3.created["CreateBucketConfiguration"]
    assert {True} == set(s3.created["PublicAccessBlockConfiguration"].values())
    assert "CreateBucketConfiguration" not in in_virginia.created
    # its name is valid, and its own
    client: Any = s3
    longest = CodeBucket(client, "s" * 33, ACCOUNT, "ap-southeast-3").name
    where = ((ACCOUNT, "a"), (ACCOUNT, "b"), ("1", "a"))
    assert 63 >= len(longest)
    assert 3 == len({CodeBucket(client, "sluice-dev", *one).name for one in where})
    with pytest.raises(Failure, match=r"is not yours.*docs/deploying\.md#permissions"):
        bucket_in(S3(**{bucket.name: "999999999999"})).is_there()
