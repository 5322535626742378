"""The release that `sluice deploy` deploys, and the bucket that it is uploaded to."""

import json
from pathlib import Path

import pytest
import yaml

from ops.deploy.artifact import Artifact
from ops.deploy.code_bucket import CodeBucket
from ops.failure import Failure
from ops.version import sluice_version
from release.artifact import archive
from tests.support.modelled import Modelled

ACCOUNT, REGION = "123456789012", "eu-central-1"
INGEST = {"Type": "AWS::Serverless::Function", "Properties": {"CodeUri": "ingest.zip", "MemorySize": 512}}
TEMPLATE = {"Resources": {"Ingest": INGEST, "Stream": {"Type": "AWS::Kinesis::Stream"}}}
NOT_THERE, NOT_OURS = ({"Error": {"Code": code, "Message": "no"}} for code in ("404", "403"))


def bucket_in(aws: Modelled, region: str = REGION) -> CodeBucket:
    """Return the bucket of the stack `sluice-dev`."""
    return CodeBucket(aws("s3"), "sluice-dev", ACCOUNT, region)


def test_a_release_is_uploaded_once(tmp_path: Path) -> None:
    """CloudFormation reads template and code from the bucket, where they have their content's name. A missing release is reported."""
    missing = r"no sluice-.*-arm64\.zip to deploy: in a clone, run `make package` first"
    with pytest.raises(Failure, match=missing):
        Artifact.find("arm64", (tmp_path,))
    template = yaml.safe_dump(TEMPLATE).encode()
    members = {"a/template.yaml": template, "a/ingest.zip": b"code", "a/LICENSE": b""}
    (tmp_path / f"sluice-{sluice_version()}-arm64.zip").write_bytes(archive(members))
    artifact = Artifact.find("arm64", (tmp_path / "nowhere", tmp_path))
    aws = Modelled({"ListObjectsV2": [{"KeyCount": count} for count in (0, 0, 1)], "PutObject": {}})
    bucket = bucket_in(aws)
    url = bucket.upload(artifact)
    assert url == bucket_in(aws).upload(artifact)
    code, uploaded = (asked for operation, asked in aws.asked if operation == "PutObject")
    resources = json.loads(uploaded["Body"].read())["Resources"]

    assert f"https://s3.eu-central-1.amazonaws.com/{bucket.name}/{uploaded['Key']}" == url
    assert f"s3://{bucket.name}/{code['Key']}" == resources["Ingest"]["Properties"].pop("CodeUri")
    assert b"code" == code["Body"].read()
    assert {"MemorySize": 512} == resources["Ingest"]["Properties"]
    assert {"Type": "AWS::Kinesis::Stream"} == resources["Stream"]
    assert {(bucket.name, ACCOUNT)} == {(one["Bucket"], one["ExpectedBucketOwner"]) for _, one in aws.asked}


def test_a_new_bucket_is_private() -> None:
    """It lies in the stack's region and belongs to the account alone. If somebody else has its name, the message says what to do."""
    made = {"HeadBucket": [NOT_THERE, {}], "CreateBucket": {}, "PutPublicAccessBlock": {}}
    aws, in_virginia = Modelled(made), Modelled(made)
    bucket = bucket_in(aws)
    assert not bucket.is_there()
    bucket.create()
    bucket_in(in_virginia, "us-east-1").create()
    asked = dict(aws.asked)

    assert bucket.is_there()
    assert {"LocationConstraint": REGION} == asked["CreateBucket"]["CreateBucketConfiguration"]
    assert {True} == set(asked["PutPublicAccessBlock"]["PublicAccessBlockConfiguration"].values())
    assert "CreateBucketConfiguration" not in dict(in_virginia.asked)["CreateBucket"]
    # its name is valid, and its own
    longest = CodeBucket(aws("s3"), "s" * 33, ACCOUNT, "ap-southeast-3").name
    where = ((ACCOUNT, "a"), (ACCOUNT, "b"), ("1", "a"))
    assert 63 >= len(longest)
    assert 3 == len({CodeBucket(aws("s3"), "sluice-dev", *one).name for one in where})
    taken = Modelled({"HeadBucket": NOT_OURS})
    with pytest.raises(Failure, match=r"is not yours.*docs/deploying\.md#permissions"):
        bucket_in(taken).is_there()
    assert ACCOUNT == dict(taken.asked)["HeadBucket"]["ExpectedBucketOwner"]
