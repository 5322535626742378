"""The bucket from which CloudFormation takes a release: its template, too large to be sent with a request, and the functions' code."""

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from ops.deploy.artifact import Artifact
from ops.failure import Failure, if_there

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CreateBucketRequestTypeDef


@dataclass(frozen=True, slots=True)
class CodeBucket:
    """The bucket of one stack, whose name differs between accounts and regions. It is removed with the stack."""

    s3: "S3Client"
    stack: str
    account: str
    region: str

    @property
    def name(self) -> str:
        """Its name."""
        place = f"{self.account}/{self.region}/{self.stack}"
        return f"{self.stack}-code-{sha256(place.encode()).hexdigest()[:12]}"

    def is_there(self) -> bool:
        """Return whether it exists.

        Raises:
            Failure: it is another account's.
        """
        try:
            found = if_there(self.s3.head_bucket, Bucket=self.name, ExpectedBucketOwner=self.account)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("403", "AccessDenied"):
                raise Failure(
                    f"the bucket {self.name} is not yours, or you may not list it: deploy under another `--stack NAME`, or attach the "
                    "policies in docs/deploying.md#permissions"
                ) from error
            raise
        return found is not None

    def create(self) -> None:
        """Create it, private."""
        request: CreateBucketRequestTypeDef = {"Bucket": self.name}
        if self.region != "us-east-1":
            request["CreateBucketConfiguration"] = {"LocationConstraint": self.region}  # type: ignore[typeddict-item]  # newer regions
        self.s3.create_bucket(**request)
        self.s3.put_public_access_block(
            Bucket=self.name,
            PublicAccessBlockConfiguration={
                "BlockPublicAcls": True,
                "IgnorePublicAcls": True,
                "BlockPublicPolicy": True,
                "RestrictPublicBuckets": True,
            },
            ExpectedBucketOwner=self.account,
        )

    def upload(self, artifact: Artifact) -> str:
        """Upload a release unless it is there, and return the URL of its template."""
        places = {
            name: f"s3://{self.name}/{self._put(content, '.zip')}" for name, content in artifact.zips.items()
        }
        template = json.dumps(artifact.template_with(places), default=str).encode()
        return f"{self.s3.meta.endpoint_url}/{self.name}/{self._put(template, '.template')}"

    def _put(self, content: bytes, suffix: str) -> str:
        """Put an object that is named after its content, and return its key."""
        key = f"{sha256(content).hexdigest()}{suffix}"
        found = self.s3.list_objects_v2(Bucket=self.name, Prefix=key, ExpectedBucketOwner=self.account)
        if not found.get("KeyCount"):
            self.s3.put_object(Bucket=self.name, Key=key, Body=content, ExpectedBucketOwner=self.account)
        return key
