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
_FULLEST = {
    "Stage": "prod",
    "Network": "managed",
    "DomainName": "events.example.com",
    "HostedZoneId": "Z0123456789ABC",
    "AlarmEmail": "a@example.com",
}
_LOG_GROUPS = set(resources("AWS::Logs::LogGroup")) - {"AccessLogs"}  # off by default
_SECRETS = set(resources("AWS::SecretsManager::Secret")) - {"RedisUrlSecret"}  # a managed Redis has none

# By check: what it requires, why the template does not do it, and for which resources.
ACCEPTED: Mapping[str, tuple[str, set[str]]] = {
    "CKV_AWS_18": (
        "buckets' access logs: access requires IAM, and a log would store visitors' addresses",
        {"DataBucket", "SdkBucket"},
    ),
    "CKV_AWS_21": (
        "versioning: published files are built from the repository, and each version has its own path",
        {"SdkBucket"},
    ),
    "CKV_AWS_26": (
        "topic's encryption: CloudWatch may not use AWS's own key, and a message says no more than its alarm",
        {"AlarmTopic"},
    ),
    "CKV_AWS_27": (
        "queues' customer-managed key: SQS encrypts them with its own",
        {"OverflowQueue", "OverflowNotices"},
    ),
    "CKV_AWS_68": (
        "firewall: the distribution serves only public files from a private bucket",
        {"SdkDistribution"},
    ),
    "CKV_AWS_86": ("distribution's access log: it would store visitors' addresses", {"SdkDistribution"}),
    "CKV_AWS_95": (
        "API's access log: a parameter enables it, because it stores visitors' addresses",
        {"ApiStage"},
    ),
    "CKV_AWS_115": (
        "reserved concurrency: parameters set it, because a new account has too little",
        set(FUNCTIONS),
    ),
    "CKV_AWS_116": (
        "dead-letter queue: only schedules and an alarm invoke asynchronously, and the next run repeats a failed one",
        set(FUNCTIONS),
    ),
    "CKV_AWS_117": (
        "VPC: every service that they use has a public endpoint with IAM; only an existing Redis may need one",
        set(FUNCTIONS),
    ),
    "CKV_AWS_119": (
        "tables' customer-managed key: they contain no rows, and DynamoDB encrypts them with AWS's key",
        {"Ledger", "Counters"},
    ),
    "CKV_AWS_28": ("point-in-time recovery: counters lose their meaning after two minutes", {"Counters"}),
    "CKV_AWS_149": ("secrets' customer-managed key: AWS's own key needs no permission in any role", _SECRETS),
    "CKV_AWS_158": (
        "logs' customer-managed key: they contain no secrets and no rows, and CloudWatch encrypts them",
        _LOG_GROUPS,
    ),
    "CKV_AWS_173": (
        "variables' customer-managed key: they contain no secrets, and Lambda encrypts them",
        set(FUNCTIONS),
    ),
    "CKV_AWS_174": (
        "TLS 1.2 or later: CloudFront decides the version for its own domain",
        {"SdkDistribution"},
    ),
}


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
    assert {check: where for check, (_, where) in ACCEPTED.items()} == failures
