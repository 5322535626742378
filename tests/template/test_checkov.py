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
    "Tracing": "on",
    "SnapStart": "on",
}
_LOG_GROUPS = set(resources("AWS::Logs::LogGroup")) - {"AccessLogs"}  # off by default
_SECRETS = set(resources("AWS::SecretsManager::Secret")) - {"RedisUrlSecret"}  # a managed Redis has none

# By check: what it requires, why the template does not do it, and for which resources.
ACCEPTED: Mapping[str, tuple[str, set[str]]] = {
    "CKV_AWS_18": (
        "bucket's access log: IAM alone reads them, and a log would keep visitors' addresses",
        {"AsideBucket", "SdkBucket"},
    ),
    "CKV_AWS_21": (
        "versions: what is published is built from the repository, under a path of its version",
        {"SdkBucket"},
    ),
    "CKV_AWS_26": (
        "topic's key: CloudWatch may not use AWS's own, and a message says no more than an alarm",
        {"AlarmTopic"},
    ),
    "CKV_AWS_27": (
        "queue's customer key: SQS encrypts it with its own",
        {"OverflowQueue", "OverflowNotices"},
    ),
    "CKV_AWS_68": (
        "firewall: it serves public files of a private bucket, and nothing else",
        {"SdkDistribution"},
    ),
    "CKV_AWS_86": ("distribution's access log: it would keep visitors' addresses", {"SdkDistribution"}),
    "CKV_AWS_95": ("API's access log: by parameter, because it keeps visitors' addresses", {"ApiStage"}),
    "CKV_AWS_115": (
        "reserved concurrency: by parameter; a new account has too little for it",
        set(FUNCTIONS),
    ),
    "CKV_AWS_116": (
        "dead-letter queue: of asynchronous calls, of which there is the schedule's alone, and the next run repeats it",
        set(FUNCTIONS),
    ),
    "CKV_AWS_117": (
        "VPC: everything that they use has a public endpoint that asks for IAM; only an existing Redis may need one",
        set(FUNCTIONS),
    ),
    "CKV_AWS_119": (
        "ledger's customer key: it holds no row, and DynamoDB encrypts it with AWS's",
        {"Ledger"},
    ),
    "CKV_AWS_149": ("secrets' customer key: AWS's own needs no right in any role", _SECRETS),
    "CKV_AWS_158": (
        "logs' customer key: they hold no secret and no row, and CloudWatch encrypts them",
        _LOG_GROUPS,
    ),
    "CKV_AWS_173": ("variables' customer key: they hold no secret, and Lambda encrypts them", set(FUNCTIONS)),
    "CKV_AWS_174": (
        "TLS 1.2 and above: CloudFront alone decides it for its own name; with SdkDomainName it is so",
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
