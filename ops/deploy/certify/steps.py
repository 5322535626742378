"""The steps of a certification, in order, and what each proves."""

from ops.deploy.certify import assumption_steps as assumptions
from ops.deploy.certify import health_steps as health
from ops.deploy.certify import outage_steps as outages
from ops.deploy.certify import replay_steps as replays
from ops.deploy.certify import request_steps as requests
from ops.deploy.certify import run_books as books
from ops.deploy.certify.step import CertifyStep

STEPS = (
    CertifyStep("doctor", "The stage has no faults before the other steps run.", health.well),
    CertifyStep(
        "dialects",
        "An event of each dialect is accepted and becomes one row, and how long that takes.",
        requests.each_dialect,
        promises=(1, 3),
    ),
    CertifyStep("gzip", "Compressed bodies pass the HTTP API unchanged.", requests.gzip_bodies),
    CertifyStep(
        "repeat", "A batch that is sent again with its id counts once.", requests.repeated, promises=(3,)
    ),
    CertifyStep("visibility", "Queries see an import as soon as the worker assumes.", health.visibility),
    CertifyStep(
        "resp",
        "The cache answers a new connection in RESP version 2, and how long the first contact takes.",
        health.resp,
    ),
    CertifyStep(
        "key",
        "While Treasure Data rejects the API key, events are answered and wait in S3; then they are delivered.",
        outages.key,
        promises=(1, 2, 5, 7),
    ),
    CertifyStep(
        "redis",
        "While Redis is cut off, events are answered and wait in S3; then they are delivered.",
        outages.redis,
        promises=(1, 2, 5),
    ),
    CertifyStep(
        "overflow",
        "An envelope on the overflow queue becomes rows, once.",
        outages.overflow,
        promises=(1, 2, 3),
    ),
    CertifyStep("replay", "A replay of the whole run sends no row twice.", replays.replayed, promises=(3,)),
    CertifyStep("force", "A forced replay sends rows once per tag.", replays.forced, promises=(3,)),
    CertifyStep(
        "redrive",
        "A record of an unknown account delays no other rows, and is delivered once the account is mapped.",
        replays.redriven_letter,
        promises=(2, 4),
    ),
    CertifyStep(
        "parameter",
        "A parameter changes without downtime, and the new version answers.",
        outages.parameter,
        (1,),
    ),
    CertifyStep(
        "idle",
        "Connections that were idle for minutes lose nothing.",
        assumptions.idle,
        lacks="does not close idle connections",
    ),
    CertifyStep(
        "metrics",
        "Metrics arrive, whatever the log level is.",
        assumptions.metrics,
        lacks="does not extract metrics from log lines",
    ),
    CertifyStep(
        "memory",
        "Treasure Data remembers an id for as long as the worker relies on.",
        health.memory,
        promises=(3,),
    ),
    CertifyStep(
        "books",
        "Treasure Data has exactly the rows that were accepted, S3 has them too, and the ledger agrees.",
        books.books,
        promises=(1, 2, 3, 6),
    ),
)
"""All steps, in order."""
