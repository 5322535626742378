"""AWS, as one part of the local stack: `python -m local.aws` runs moto's server on a free port.

It is a separate process so that it does not compete with the functions for the interpreter lock.
"""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from threading import Lock
from typing import Any

from moto.dynamodb.exceptions import ConditionalCheckFailed
from moto.dynamodb.models import DynamoDBBackend
from moto.kinesis.models import Shard
from moto.server import ThreadedMotoServer

from doubles.dynamodb.partiql import parse_insert
from local.parent_watch import ParentWatch

_inserting = Lock()


def insert_all(backend: DynamoDBBackend, statements: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Carry out a batch of PartiQL INSERTs; return a response for each."""
    return [_insert(backend, one["Statement"], one.get("Parameters", ())) for one in statements]


def _insert(backend: DynamoDBBackend, statement: str, parameters: Sequence[dict[str, Any]]) -> dict[str, Any]:
    table, item = parse_insert(statement, parameters)
    try:
        with _inserting:
            backend.put_item(table, item, condition_expression="attribute_not_exists(pk)")
    except ConditionalCheckFailed:
        return {"Error": {"Code": "DuplicateItem", "Message": "Duplicate primary key exists in table"}}
    return {"TableName": table}


def main() -> None:
    """Serve until the parent process ends."""
    parent = ParentWatch()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # otherwise it logs every request
    # moto's INSERT takes no parameters, and overwrites the item that is there
    DynamoDBBackend.batch_execute_statement = insert_all  # type: ignore[assignment]  # Iterable, not list
    # moto's shards begin at their oldest record, AWS's where they were created
    Shard.get_min_sequence_number = lambda self: 0  # type: ignore[method-assign]  # noqa: ARG005
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ["MOTO_PORT"] = str(port)  # moto puts it into queue URLs
    parent.ready(endpoint=f"http://{host}:{port}")
    parent.wait()
    os._exit(0)  # do not wait for its threads: all of its state is in memory


if __name__ == "__main__":
    main()
