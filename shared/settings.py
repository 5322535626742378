"""Every setting of the functions, read from the environment once per sandbox.

A field's metadata holds the variable's name and what it means; docs/configuration.md and template.yaml are compared
with them by tests.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Self

from shared.errors import SettingsError

_COLUMN = re.compile(r"[a-z_][a-z0-9_]{0,127}")
_KEPT_COLUMNS = ("time", "event_id", "received_at")
_HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+(:[0-9]{1,5})?")


def _setting(name: str, doc: str, default: Any = MISSING, parse: Callable[[str], Any] = str) -> Any:
    return field(default=default, metadata={"name": name, "doc": doc, "parse": parse})


def _origins(text: str) -> tuple[str, ...]:
    return tuple(origin.strip() for origin in text.split(",") if origin.strip())


def _columns(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name in _KEPT_COLUMNS or not _COLUMN.fullmatch(name):
            raise ValueError(f"{name!r} is no column that can be left out")
    return names


def _hosts(text: str) -> tuple[str, ...]:
    hosts = tuple(host.strip().lower() for host in text.split(",") if host.strip())
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise ValueError(f"{host!r} is no host's name")
    return hosts


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError("at least 1")
    return number


def _one_of(*values: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in values:
            raise ValueError(f"one of {', '.join(values)}")
        return text

    return parse


class _Settings:
    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Return the settings that the environment holds; an empty variable counts as absent.

        Raises:
            SettingsError: a required one is missing, or one cannot be read.
        """
        values, faults = {}, []
        for setting in fields(cls):  # type: ignore[arg-type]  # every subclass is a dataclass
            text = environment.get(setting.metadata["name"], "")
            if text:
                try:
                    values[setting.name] = setting.metadata["parse"](text)
                except ValueError as error:
                    faults.append(f"{setting.metadata['name']}: {error}")
            elif setting.default is MISSING:
                faults.append(f"{setting.metadata['name']} is not set")
        if faults:
            raise SettingsError("; ".join(faults))
        return cls(**values)


@dataclass(frozen=True, slots=True)
class IngestSettings(_Settings):
    """What the ingest needs to know."""

    stream_name: str = _setting("STREAM_NAME", "Kinesis stream that takes the envelopes")
    overflow_queue_url: str = _setting(
        "OVERFLOW_QUEUE_URL", "SQS queue for envelopes that the stream does not take"
    )
    write_key_secret: str = _setting(
        "WRITE_KEY_SECRET", "Secrets Manager secret with the signing secrets, JSON by id"
    )
    allowed_origins: tuple[str, ...] = _setting(
        "ALLOWED_ORIGINS",
        "Origins whose pages may read answers, separated by commas; `*` is any, without credentials",
        ("*",),
        _origins,
    )
    partition_buckets: int = _setting(
        "PARTITION_BUCKETS", "Partition keys over which one account's visitors spread", 16, _positive
    )
    honor_gpc: str = _setting(
        "HONOR_GPC",
        "`on`: visitors whose browser sends Global Privacy Control (`Sec-GPC: 1`) are not identified",
        "on",
        _one_of("on", "off"),
    )
    honor_dnt: str = _setting(
        "HONOR_DNT",
        "`on`: the same for visitors whose browser sends `DNT: 1`",
        "off",
        _one_of("on", "off"),
    )
    visitor_ip: str = _setting(
        "VISITOR_IP",
        "What becomes of `td_ip`: `keep`; `truncate` to an IPv4 /24 or IPv6 /48 network; `drop`",
        "keep",
        _one_of("keep", "truncate", "drop"),
    )
    visitor_cookies: str = _setting(
        "VISITOR_COOKIES",
        "`on`: the id endpoints of Treasure Data's SDKs set cookies",
        "off",
        _one_of("on", "off"),
    )
    dropped_columns: tuple[str, ...] = _setting(
        "DROPPED_COLUMNS", "Columns that no row is to have, separated by commas", (), _columns
    )
    hashed_columns: tuple[str, ...] = _setting(
        "HASHED_COLUMNS",
        "Columns whose values are replaced by a keyed hash, separated by commas",
        (),
        _columns,
    )
    bots: str = _setting(
        "BOTS",
        "What becomes of known bots' events: `mark` them in the column `bot`; `drop` them; `keep` them like others",
        "mark",
        _one_of("mark", "drop", "keep"),
    )
    redirect_hosts: tuple[str, ...] = _setting(
        "REDIRECT_HOSTS",
        "Hosts to which a postback's `td_redirect` may lead, separated by commas",
        (),
        _hosts,
    )
    stage: str = _setting("STAGE", "The stage, a dimension of every metric", "dev")


@dataclass(frozen=True, slots=True)
class WorkerSettings(_Settings):
    """What the worker, the redrive and the drainer need to know."""

    stream_name: str = _setting("STREAM_NAME", "Kinesis stream that holds the envelopes")
    overflow_queue_url: str = _setting(
        "OVERFLOW_QUEUE_URL", "SQS queue for envelopes that the stream did not take"
    )
    ledger_table: str = _setting("LEDGER_TABLE", "DynamoDB table that holds the ledger")
    aside_bucket: str = _setting("ASIDE_BUCKET", "S3 bucket that holds what is set aside")
    redis_url_secret: str = _setting(
        "REDIS_URL_SECRET", "Secrets Manager secret with the `redis://` or `rediss://` URL"
    )
    td_api_key_secret: str = _setting(
        "TD_API_KEY_SECRET", "Secrets Manager secret with Treasure Data's API key, plain text"
    )
    td_import_endpoint: str = _setting(
        "TD_IMPORT_ENDPOINT",
        "Treasure Data's import endpoint of your region",
        "https://api-import.treasuredata.com",
    )
    td_api_endpoint: str = _setting(
        "TD_API_ENDPOINT", "Treasure Data's API endpoint of your region", "https://api.treasuredata.com"
    )
    retention_hours: int = _setting(
        "RETENTION_HOURS", "The stream's retention; what is held for half of it is set aside", 168, int
    )
    park_after_seconds: int = _setting(
        "PARK_AFTER_SECONDS",
        "How long one database is tried while others succeed before its rows are parked",
        20,
        int,
    )
    parked_max_days: int = _setting(
        "PARKED_MAX_DAYS", "Days after which parked rows become dead letters", 14, int
    )
    td_memory_minutes: int = _setting(
        "TD_MEMORY_MINUTES", "How long Treasure Data remembers a unique_id", 60, int
    )
    td_query_delay_minutes: int = _setting(
        "TD_QUERY_DELAY_MINUTES", "How long after an import a query is sure to find its rows", 10, int
    )
    unaskable_doubt: str = _setting(
        "UNASKABLE_DOUBT",
        "What becomes of rows in doubt where the API key may not query: `send` them and report, or `keep` them for a person",
        "send",
        _one_of("send", "keep"),
    )
    upload_threads: int = _setting("UPLOAD_THREADS", "Uploads under way at once", 16, int)
    uploads_per_database: int = _setting("UPLOADS_PER_DATABASE", "Of these, for one database", 4, int)
    chunk_max_rows: int = _setting("CHUNK_MAX_ROWS", "Rows of one import request", 50_000, int)
    chunk_max_bytes: int = _setting(
        "CHUNK_MAX_BYTES", "Bytes of one import request before compression", 16 << 20, int
    )
