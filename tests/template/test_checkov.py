"""Checkov's findings in the template, each with the reason why it is accepted."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.modes import Mode
from tests.support.sam import FUNCTIONS, ROOT, resources

_PROGRAM = ROOT / ".venv-checkov" / "bin" / "checkov"
# The mode with the most resources.
_FULLEST = {"Stage": "prod", "Network": "managed", "AlarmEmail": "a@example.com"}
_FULLEST |= {"DomainName": "events.example.com", "HostedZoneId": "Z0123456789ABC"}
_LOG_GROUPS = set(resources("AWS::Logs::LogGroup")) - {"AccessLogs"}  # off by default
_SECRETS = set(resources("AWS::SecretsManager::Secret")) - {"RedisUrlSecret"}  # a managed Redis has none

_ALL = set(FUNCTIONS)
ACCEPTED: Mapping[str, set[str]] = {
    "CKV_AWS_18": {"DataBucket", "SdkBucket"},  # buckets' access logs would store visitors' addresses
    "CKV_AWS_21": {"SdkBucket"},  # versioning: each version of the published files has its own path
    "CKV_AWS_26": {"AlarmTopic"},  # a key of AWS: CloudWatch may not use it; a message only names an alarm
    "CKV_AWS_27": {"OverflowQueue", "OverflowNotices"},  # a key of ours: SQS encrypts them with its own
    "CKV_AWS_28": {"Counters"},  # point-in-time recovery: counters lose their meaning after two minutes
    "CKV_AWS_68": {"SdkDistribution"},  # firewall: it serves only public files from a private bucket
    "CKV_AWS_86": {"SdkDistribution"},  # its access log would store visitors' addresses
    "CKV_AWS_95": {"ApiStage"},  # the API's access log stores visitors' addresses, so a parameter enables it
    "CKV_AWS_115": _ALL,  # reserved concurrency: parameters set it, because a new account has too little
    "CKV_AWS_116": _ALL,  # dead-letter queue: the next scheduled run repeats a failed one
    "CKV_AWS_117": _ALL,  # VPC: all that they use has a public endpoint with IAM, except an existing Redis
    "CKV_AWS_119": {"Ledger", "Counters"},  # a key of ours: they contain no rows, and DynamoDB encrypts them
    "CKV_AWS_149": _SECRETS,  # a key of ours: AWS's own needs no permission in any role
    "CKV_AWS_158": _LOG_GROUPS,  # a key of ours: no secrets, no rows, and CloudWatch encrypts them
    "CKV_AWS_173": _ALL,  # variables with a key of ours: no secrets, and Lambda encrypts them
    "CKV_AWS_174": {"SdkDistribution"},  # TLS 1.2: CloudFront decides the version for its own domain
}
"""Which resources may fail a check. The comment names what the check requires, and why the template does not do it."""


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Return the resources that fail each check."""
    if not _PROGRAM.exists():
        reason = "checkov is not installed: make .venv-checkov/installed"
        if "CI" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)
    path: Path = tmp_path_factory.mktemp("checkov") / "template.json"
    path.write_text(json.dumps(Mode(_FULLEST).template()))
    command = [str(_PROGRAM), "--file", str(path), "--framework", "cloudformation", "--skip-download"]
    done = subprocess.run(
        [*command, "--quiet", "--output", "json"],
        cwd=path.parent,
        check=False,
        capture_output=True,
        text=True,
    )
    results = json.loads(done.stdout)["results"]
    failed: dict[str, set[str]] = {}
    for check in results["failed_checks"]:
        failed.setdefault(check["check_id"], set()).add(check["resource"].rpartition(".")[2])
    return failed


def test_every_finding_is_explained(failures: dict[str, set[str]]) -> None:
    """There are no other findings, and no obsolete explanations."""
    assert ACCEPTED == failures
