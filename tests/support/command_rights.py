"""The AWS permissions that each command needs, as docs/policies/commands.json lists them and a test compares, and policies that grant them."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tests.support.sam import ROOT

FILE = ROOT / "docs/policies/commands.json"
RIGHTS: Mapping[str, list[str]] = json.loads(FILE.read_text())
"""IAM actions by command. If a stack has several resources of a type, the output that names the resource, or the index, follows."""

OWNERS = {"certify", "deploy", "preflight", "remove"}
"""Commands that check a deploy, deploy, change functions and secrets, and remove the stack. They need the permissions to deploy it."""

OPTIONAL: Mapping[str, tuple[str, ...]] = {
    "status": ("lambda:InvokeFunction AdminFunction", "secretsmanager:GetSecretValue WriteKeySecret"),
    "wait": ("lambda:InvokeFunction AdminFunction",),
}
"""Actions that a command uses if it may. Without them, `status` does not look at accounts, Redis, Treasure Data and write keys, and `wait`
does not notice that an account does not exist."""

_MISSING = ("s3:ListBucket DataBucket",)
_EDITED = ("dynamodb:GetItem",)
UNASKED: Mapping[str, tuple[str, ...]] = {
    "console": _MISSING,
    "dead show": _MISSING,
    "export": ("dynamodb:GetItem", "s3:GetObject DataBucket"),
    "find": _EDITED,
    "forget": ("dynamodb:GetItem",),
    "plan diff": _EDITED,
    "plan infer": _EDITED,
    "redrive": _MISSING,
    "replay": (*_EDITED, "lambda:InvokeFunction WorkerFunction", "s3:GetObject DataBucket"),
    "sdk publish": ("s3:ListBucket SdkBucket",),
    "status": _MISSING,
    "wait": (
        *("kinesis:GetShardIterator", "kinesis:GetRecords", "dynamodb:Query worklist"),
        "dynamodb:BatchGetItem",
        "lambda:InvokeFunction SenderFunction",
    ),
}
"""Actions that a command needs only at times: of spans of edited rows, some read the item. Without s3:ListBucket, S3 answers 403 instead of 404 for a missing object. Of spans and objects
with rows of a person, `export` and `forget` read only those. A replay invokes the worker with records that are in no span, and reads an index if it sees only some of a span's records. `wait` reads
shards that the sender has closed, and what waits once every shard has passed the time. It also has the sender's function put markers and note that the overflow queue is empty; without that right, it
waits only with WatermarkTable, or if watermarks have come far enough."""

ROLES: Mapping[str, tuple[str, ...]] = {
    "watch": ("status", "wait"),
    "operate": (
        *("accounts apply", "accounts disable", "accounts enable", "accounts export", "accounts list"),
        *("accounts show", "dead drop", "dead list", "dead show"),
        *("doctor", "keys issue", "keys revoke", "keys verify", "record", "redrive", "replay", "status"),
        *("find", "tail", "wait"),
        *("plan diff", "plan infer"),
    ),
    "persons": ("export", "forget"),
}
"""The commands of each role. `watch` changes nothing."""

# ARNs by service or action, with the outputs of template.yaml in angle brackets. `*` where AWS supports no resource.
_PLACES = {
    "cloudformation": "arn:aws:cloudformation:*:*:stack/STACK/*",
    "dynamodb": "arn:aws:dynamodb:*:*:table/<LedgerTable>",
    "dynamodb:Query counters": "arn:aws:dynamodb:*:*:table/<CountersTable>",
    "dynamodb:Scan counters": "arn:aws:dynamodb:*:*:table/<CountersTable>",
    "dynamodb:Query worklist": "arn:aws:dynamodb:*:*:table/<LedgerTable>/index/worklist",
    "kinesis": "arn:aws:kinesis:*:*:stream/<StreamName>",
    "lambda": "arn:aws:lambda:*:*:function:STACK-*",
    "logs": "arn:aws:logs:*:*:log-group:STACK-*",
    "sns": "<AlarmTopic>",
    "sqs": "arn:aws:sqs:*:*:STACK-*",
    "lambda:InvokeFunction": "arn:aws:lambda:*:*:function:<{}>",
    "lambda:ListEventSourceMappings": "*",
    "cloudwatch:DescribeAlarms": "*",
    "cloudwatch:GetMetricData": "*",
    "events:ListRules": "*",
    "s3:ListBucket": "arn:aws:s3:::<{}>",
    "s3": "arn:aws:s3:::<{}>/*",
    "secretsmanager": "<{}>",
}

# Outputs that are ARNs, before there is a stack. CloudFormation names secrets after their logical ids; a parameter may give another.
_BEFORE = {
    "<WriteKeySecret>": ["arn:aws:secretsmanager:*:*:secret:WriteKeySecret-*"],
    "<TdApiKeySecret>": ["arn:aws:secretsmanager:*:*:secret:TdApiKeySecret-*", "<TdApiKeySecretArn>"],
    "<AlarmTopic>": ["arn:aws:sns:*:*:STACK-*"],
}


def policy(commands: Iterable[str], *, is_deployed: bool = True) -> dict[str, Any]:
    """Return the IAM policy for commands. `<…>` stands for an output, STACK for the stack's name, with which names begin before there are outputs."""
    places: dict[str, set[str]] = {}
    for right in {right for command in commands for right in RIGHTS[command]}:
        action, _, output = right.partition(" ")
        place = _PLACES.get(right) or _PLACES.get(action) or _PLACES[action.partition(":")[0]]
        named = place.format(output)
        for one in [named] if is_deployed else _BEFORE.get(named, [re.sub("<[^>]+>", "STACK-*", named)]):
            places.setdefault(one, set()).add(action)
    statements = [
        {"Effect": "Allow", "Action": sorted(actions), "Resource": place}
        for place, actions in sorted(places.items())
    ]
    return {"Version": "2012-10-17", "Statement": statements}
