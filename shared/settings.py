"""Every setting of the functions, read from the environment once per function instance.

A field's metadata holds the variable's name and meaning; tests compare them with template.yaml.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Self

from shared.errors import SettingsError
from shared.names import ROW_COLUMNS
from shared.rows import column_name

LEAST_ARCHIVE_DAYS, MOST_ARCHIVE_DAYS = 2, 300
"""A span's object must be gone before the ledger forgets the span (366 days)."""

_COLUMN = re.compile(r"[a-z_][a-z0-9_]{0,127}")
_HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+(:[0-9]{1,5})?")


def _setting(name: str, doc: str, default: Any = MISSING, parse: Callable[[str], Any] = str) -> Any:
    return field(default=default, metadata={"name": name, "doc": doc, "parse": parse})


def _switch(name: str, doc: str, default: str) -> Any:
    return _setting(name, doc, default, _one_of("on", "off"))


def _list(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _lower_list(text: str) -> tuple[str, ...]:
    return _list(text.lower())


def columns(text: str) -> tuple[str, ...]:
    """Return the columns that DroppedColumns or HashedColumns names.

    Raises:
        ValueError: one cannot be dropped or hashed.
    """
    names = _list(text)
    for name in names:
        if name in ROW_COLUMNS or not _COLUMN.fullmatch(name):
            raise ValueError(f"{name!r} is not a column that can be dropped or hashed")
    return tuple(map(column_name, names))  # `v` is stored under another name


def _hosts(text: str) -> tuple[str, ...]:
    hosts = _lower_list(text)
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise ValueError(f"{host!r} is not a host name")
    return hosts


def _proxies(text: str) -> tuple[IPv4Network | IPv6Network | str, ...]:
    names = _lower_list(text)
    return tuple(name if name == "cloudfront" else _network(name) for name in names)


def _network(text: str) -> IPv4Network | IPv6Network:
    """Return a network. One of IPv4 addresses in IPv6's notation becomes IPv4, as the addresses of requests do."""
    network = ip_network(text, strict=False)
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    return network if mapped is None else IPv4Network((mapped, network.prefixlen - 96))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError("must be at least 1")
    return number


def _days(text: str) -> int:
    number = int(text)
    if not LEAST_ARCHIVE_DAYS <= number <= MOST_ARCHIVE_DAYS:
        raise ValueError(f"must be {LEAST_ARCHIVE_DAYS} to {MOST_ARCHIVE_DAYS}")
    return number


def _one_of(*values: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in values:
            raise ValueError(f"must be one of {', '.join(values)}")
        return text

    return parse


@dataclass(frozen=True, slots=True)
class _Settings:
    stream_name: str = _setting("STREAM_NAME", "Kinesis stream for the envelopes")
    overflow_queue_url: str = _setting(
        "OVERFLOW_QUEUE_URL", "SQS queue for envelopes that the stream did not acknowledge"
    )
    data_bucket: str = _setting(
        "DATA_BUCKET", "S3 bucket of span objects, rejected events and the edge policy"
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the settings from the environment; an empty variable counts as not set.

        Raises:
            SettingsError: settings are missing or invalid.
        """
        values, faults = {}, []
        for setting in (one for one in fields(cls) if one.metadata):
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
    """Settings of the ingest."""

    write_key_secret: str = _setting(
        "WRITE_KEY_SECRET", "Secrets Manager secret with the signing secrets, as JSON by id"
    )
    overflow_notices_url: str = _setting(
        "OVERFLOW_NOTICES_URL", "SQS queue of notices, which say that the overflow queue was used minutes ago"
    )
    counters_table: str = _setting("COUNTERS_TABLE", "DynamoDB table of what accounts spend of their budgets")
    allowed_origins: tuple[str, ...] = _setting(
        "ALLOWED_ORIGINS",
        "Origins whose pages may read responses, separated by commas; `*` allows any origin, without credentials",
        ("*",),
        _lower_list,  # as browsers write them
    )
    honor_gpc: str = _switch(
        "HONOR_GPC",
        "`on`: remove identifying columns if the browser sends Global Privacy Control (`Sec-GPC: 1`)",
        "on",
    )
    honor_dnt: str = _switch("HONOR_DNT", "`on`: do the same if the browser sends `DNT: 1`", "off")
    visitor_ip: str = _setting(
        "VISITOR_IP",
        "What to do with `td_ip`: `keep` it, `truncate` it to an IPv4 /24 or IPv6 /48 network, or `drop` it",
        "keep",
        _one_of("keep", "truncate", "drop"),
    )
    visitor_cookies: str = _switch(
        "VISITOR_COOKIES", "`on`: the id endpoints for Treasure Data's SDKs set cookies", "off"
    )
    dropped_columns: tuple[str, ...] = _setting(
        "DROPPED_COLUMNS", "Columns to remove from every row, separated by commas", (), columns
    )
    hashed_columns: tuple[str, ...] = _setting(
        "HASHED_COLUMNS", "Columns to replace with a keyed hash, separated by commas", (), columns
    )
    bots: str = _setting(
        "BOTS",
        "What to do with events from known bots: `mark` them in the column `bot`, `drop` them, or `keep` them unmarked",
        "mark",
        _one_of("mark", "drop", "keep"),
    )
    key_events_per_second: int = _setting(
        "KEY_EVENTS_PER_SECOND",
        "Events per second that a function instance accepts from one write key, with 1 KiB of rows each; short bursts may be ten times as large",
        5000,
        _positive,
    )
    trusted_proxies: tuple[IPv4Network | IPv6Network | str, ...] = _setting(
        "TRUSTED_PROXIES",
        "Proxies whose `x-forwarded-for` is trusted, separated by commas: addresses, networks, or `cloudfront` for distributions"
        " that send the field `.proxy` of the secret with the signing secrets as `x-sluice-proxy`",
        (),
        _proxies,
    )
    redirect_hosts: tuple[str, ...] = _setting(
        "REDIRECT_HOSTS",
        "Hosts that a postback's `td_redirect` may redirect to, separated by commas",
        (),
        _hosts,
    )
    stage: str = _setting("STAGE", "Name of the stage in logs and metrics", "dev")


@dataclass(frozen=True, slots=True)
class ScalerSettings(_Settings):
    """Settings of the scaler."""

    stream_mode: str = _setting(
        "STREAM_MODE",
        "`AUTO` adjusts the number of shards to the traffic, `PROVISIONED` keeps SHARD_COUNT, `ON_DEMAND` leaves it to Kinesis",
        "AUTO",
        _one_of("AUTO", "PROVISIONED", "ON_DEMAND"),
    )
    max_shards: int = _setting("MAX_SHARDS", "Maximum number of shards of an `AUTO` stream", 16, _positive)
    shard_count: int = _setting("SHARD_COUNT", "Number of shards of a `PROVISIONED` stream", 1, _positive)


@dataclass(frozen=True, slots=True)
class WorkerSettings(_Settings):
    """Settings of the worker, the sender and the drainer."""

    overflow_notices_url: str = _setting(
        "OVERFLOW_NOTICES_URL", "SQS queue of notices, which say that the overflow queue was used minutes ago"
    )
    ledger_table: str = _setting("LEDGER_TABLE", "DynamoDB table that holds the ledger")
    td_api_key_secret: str = _setting(
        "TD_API_KEY_SECRET", "Secrets Manager secret with the Treasure Data API key, as plain text"
    )
    write_key_secret: str = _setting(
        "WRITE_KEY_SECRET",
        "Secrets Manager secret with the key by which the sender recognises persons to forget",
    )
    redis_url: str = _setting(
        "REDIS_URL",
        "`rediss://USER@HOST:PORT/?cache=NAME` of an ElastiCache serverless cache, where the functions sign in with IAM",
        "",
    )
    redis_url_secret: str = _setting(
        "REDIS_URL_SECRET",
        "Secrets Manager secret with the `redis://` or `rediss://` URL of any other Redis",
        "",
    )
    td_import_endpoint: str = _setting(
        "TD_IMPORT_ENDPOINT",
        "Treasure Data import endpoint for your region",
        "https://api-import.treasuredata.com",
    )
    td_api_endpoint: str = _setting(
        "TD_API_ENDPOINT", "Treasure Data API endpoint for your region", "https://api.treasuredata.com"
    )
    archive_days: int = _setting(
        "ARCHIVE_DAYS",
        "Days for which rows are kept in S3 after they were stored, and for as long as they wait or are dead; at least 2",
        30,
        _days,
    )
    td_memory_minutes: int = _setting(
        "TD_MEMORY_MINUTES", "Minutes for which Treasure Data de-duplicates a repeated unique_id", 60, int
    )
    td_query_delay_minutes: int = _setting(
        "TD_QUERY_DELAY_MINUTES", "Minutes after an import until a query is certain to find its rows", 10, int
    )
    watermark_table: str = _setting(
        "WATERMARK_TABLE",
        "Table of each account's database that watermarks are written to; empty to write none",
        "",
    )
    unaskable_doubt: str = _setting(
        "UNASKABLE_DOUBT",
        "What to do with rows that Treasure Data may have if the API key may not query: `send` them again and report it, or `keep` them for an operator",
        "send",
        _one_of("send", "keep"),
    )
    # what no variable sets
    uploads_per_database: int = 4
    chunk_max_rows: int = 50_000
    chunk_max_bytes: int = 16 << 20
