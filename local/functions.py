"""The functions as the local stack runs them: handler, limits and environment, as template.yaml has them."""

from collections.abc import Mapping
from dataclasses import dataclass

from local.resources import CREDENTIALS, REGION, Resources


@dataclass(frozen=True, slots=True)
class Function:
    """One Lambda function.

    Attributes:
        name: its logical id in template.yaml.
        handler: `module.function`.
        service: what it calls itself in logs and metrics.
        timeout: seconds that an invocation may take.
        memory: MB.
    """

    name: str
    handler: str
    service: str
    timeout: int
    memory: int


INGEST = Function("IngestFunction", "ingest.app.handler", "ingest", 10, 512)
WORKER = Function("WorkerFunction", "worker.app.handler", "worker", 120, 512)
REDRIVE = Function("RedriveFunction", "worker.redrive.handler", "redrive", 240, 512)
DRAIN = Function("DrainFunction", "worker.drain.handler", "drain", 300, 512)
ADMIN = Function("AdminFunction", "worker.admin.handler", "admin", 60, 512)
FUNCTIONS = {function.name: function for function in (INGEST, WORKER, REDRIVE, DRAIN, ADMIN)}


def variables(function: Function, made: Resources, td_url: str, changes: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that template.yaml gives the function.

    Args:
        function: which one.
        made: what it stands on.
        td_url: Treasure Data's address.
        changes: variables to set otherwise.
    """
    both = {
        "STAGE": "local",
        "POWERTOOLS_METRICS_NAMESPACE": "Sluice",
        "POWERTOOLS_LOG_LEVEL": "INFO",
        "POWERTOOLS_SERVICE_NAME": function.service,
        "STREAM_NAME": made.stream,
        "OVERFLOW_QUEUE_URL": made.queue_url,
    }
    if function is INGEST:
        own = {
            "WRITE_KEY_SECRET": made.write_key_secret,
            "ALLOWED_ORIGINS": "*",
            "PARTITION_BUCKETS": "16",
            "HONOR_GPC": "on",
            "HONOR_DNT": "off",
            "VISITOR_IP": "keep",
            "VISITOR_COOKIES": "off",
            "DROPPED_COLUMNS": "",
            "HASHED_COLUMNS": "",
            "BOTS": "mark",
            "REDIRECT_HOSTS": "",
        }
    else:
        own = {
            "LEDGER_TABLE": made.ledger_table,
            "ASIDE_BUCKET": made.aside_bucket,
            "REDIS_URL_SECRET": made.redis_url_secret,
            "TD_API_KEY_SECRET": made.td_api_key_secret,
            "TD_IMPORT_ENDPOINT": td_url,
            "TD_API_ENDPOINT": td_url,
            "RETENTION_HOURS": "168",
            "PARK_AFTER_SECONDS": "20",
            "PARKED_MAX_DAYS": "14",
            "TD_MEMORY_MINUTES": "60",
            "TD_QUERY_DELAY_MINUTES": "10",
            "UNASKABLE_DOUBT": "send",
        }
    return both | own | dict(changes)


def sandbox(function: Function, endpoint: str) -> dict[str, str]:
    """Return the environment variables that Lambda itself would set, and where AWS is."""
    return CREDENTIALS | {
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_LAMBDA_FUNCTION_NAME": function.name,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory),
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
    }
