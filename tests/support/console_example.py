"""Example data for the console, with something of everything, so that every part of its page is shown."""

from typing import Any

NOW = 1_795_686_666.0
HOURS = [0, 0, 3, 8, 21, 40, 55, 61, 80, 120, 90, 70, 66, 59, 72, 88, 140, 160, 130, 90, 44, 20, 9, 4]

STATE: dict[str, Any] = {
    "stack": {
        "name": "sluice-prod",
        "region": "eu-central-1",
        "option": "--stack sluice-prod --region eu-central-1",
    },
    "at": NOW,
    "allows_changes": True,
    "redrivable": ["waiting", "again", "dead"],
    "droppable": ["dead", "waiting", "rejected"],
    "look": {
        "at": NOW,
        "error": "",
        "known": True,
        "lines": [
            {
                "health": "attention",
                "line": "ATTENTION: 1 dead row (column_limit). `sluice dead list` lists them. Fix the cause, then send them with "
                "`sluice redrive --kind dead` or drop them.",
            },
            {
                "health": "waiting",
                "line": "WAITING for 1 h: 12,482 rows for the database media wait in S3: Treasure Data answers 503. No action needed: "
                "delivery resumes on its own.",
            },
        ],
        "shards": [
            {
                "shard": "shardId-000000000000",
                "records": 8300,
                "is_complete": False,
                "behind_seconds": 124.2,
                "rows_per_second": 0.0,
            },
            {
                "shard": "shardId-000000000001",
                "records": 0,
                "is_complete": True,
                "behind_seconds": 0.0,
                "rows_per_second": 12.5,
            },
        ],
        "in_queue": 3,
        "waiting": [
            {
                "database": "media",
                "account": "news",
                "reason": "http_503",
                "words": "",
                "rows": 12_482,
                "since": NOW - 3600,
                "seconds": 3600.0,
            },
        ],
        "rows": [
            {"kind": "dead", "account": "shop_with_a_rather_long_name", "reason": "column_limit", "rows": 1},
            {"kind": "waiting", "account": "news", "reason": "http_503", "rows": 12_482},
        ],
        "rows_are_complete": True,
        "rejected": [
            {"account": "shop", "table": "", "code": "invalid_table", "events": 41},
            {"account": "shop", "table": "orders", "code": "too_many_columns", "events": 1},
        ],
        "budgets": [{"account": "shop", "spent": 0.75, "refused_requests": 1312, "refused_events": 1312}],
        "errors": [
            {
                "function": "worker",
                "times": 4,
                "last": "2026-11-26T09:50:12+00:00",
                "what": "held",
                "why": "SlowDown",
            },
        ],
    },
    "counts": {
        "at": NOW,
        "error": "",
        "known": True,
        "accepted": 1_204_311,
        "in_flight": 8_420,
        "delivered": 1_183_408,
        "waiting": 12_482,
        "dead": 1,
        "is_complete": False,
        "adds_up": True,
        "tables": [
            {
                "account": account,
                "table": table,
                "received": received,
                "delivered": received - 100,
                "in_flight": 100,
                "waiting": waiting,
                "dead": dead,
                "first": NOW - 40 * 86_400,
                "last": NOW - 12,
                "per_minute": 61.2,
                "hours": HOURS,
            }
            for account, table, received, waiting, dead in (
                ("shop", "pageviews", 353_193, 0, 0),
                ("news", "article_views", 812_004, 12_482, 0),
                ("shop_with_a_rather_long_name", "purchases_of_the_autumn_campaign", 39_114, 0, 1),
            )
        ],
    },
    "accounts": {
        "at": NOW,
        "error": "",
        "known": True,
        "applied_at": "2026-11-25T16:20:11+00:00",
        "accounts": [
            {
                "account": "news",
                "database": "media",
                "status": "active",
                "revoked_key_ids": [],
                "plan": {"mode": "observe", "tables": 3},
            },
            {
                "account": "closed",
                "database": "closed_db",
                "status": "disabled",
                "revoked_key_ids": ["k1-2", "k1-3"],
                "plan": None,
            },
        ],
    },
    "actions": [
        {
            "what": "drop",
            "kind": "dead",
            "account": "app",
            "reason": "invalid_rows",
            "rows": 7,
            "at": NOW - 90,
            "state": "done",
            "result": {"delivered": 0, "kept": 0, "dead": 0, "dropped": 7, "copies": 0, "complete": True},
            "error": "",
        },
        {
            "what": "redrive",
            "kind": "waiting",
            "account": "news",
            "reason": "http_503",
            "rows": 12_000,
            "at": NOW - 200,
            "state": "failed",
            "result": None,
            "error": "your credentials do not allow Invoke",
        },
    ],
}

LOCAL: dict[str, Any] = {
    "parts": [
        {"name": "worker", "running": False, "paused": True, "restarts": 1, "ended": "with SIGKILL"},
        {"name": "ingest", "running": True, "paused": False, "restarts": 0, "ended": ""},
    ],
    "outages": {"worker": 81.0},
    "refused": {"invalid_key": 4, "missing_table": 1},
    "addresses": {"Gateway": "http://127.0.0.1:8700", "Valkey": "redis://127.0.0.1:8704/0"},
    "stack": {"name": "local", "region": None, "option": "--local"},
}
"""The data that the local stack adds or shows differently."""

_ROW = {
    "time": 1_795_686_660,
    "event_id": "01a21744",
    "td_client_id": "~f3a9c1",
    "td_url": "~77aa01",
    "td_title": "Rain until Friday",
}
_EVENT = {
    "kind": "event",
    "at": NOW,
    "differs": [],
    "key_id": "k1-1",
    "event_id": "01a21744",
    "request_id": "01a21744-10d5",
    "shard": "shardId-000000000000",
    "code": "",
    "path": "",
}

EVENTS: dict[str, Any] = {
    "events": [
        _EVENT
        | {
            "number": 1,
            "at": NOW + 30,
            "account": "news",
            "table": "article_views",
            "row": _ROW | {"article": "rain", "depth": 0.75},
        },
        _EVENT
        | {
            "number": 2,
            "account": "shop",
            "table": "orders",
            "row": _ROW
            | {
                "sku": "tea-03",
                "price": 1350,
                "note": "a text that is far too long for one line of the page, whatever its width, so that it is cut",
            },
        },
        _EVENT
        | {
            "number": 3,
            "kind": "rejected",
            "account": "shop",
            "table": "Page Views",
            "code": "invalid_table",
            "event_id": "",
            "row": {"table": "Page Views", "page": "/<b>home</b>"},
        },
        _EVENT
        | {
            "number": 4,
            "account": "shop",
            "table": "oders",
            "differs": ["the tracking plan has no such table"],
            "row": _ROW | {"sku": "cup-12"},
        },
        _EVENT
        | {
            "number": 5,
            "kind": "refused",
            "account": "",
            "table": "",
            "code": "invalid_key",
            "path": "/v1/events",
            "event_id": "",
            "shard": "",
            "key_id": "",
            "row": {},
        },
    ],
    "next": 5,
    "note": "shardId-000000000000 is 12 s behind: tail uses at most a fifth of a shard's read capacity.",
}
