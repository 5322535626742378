"""AWS as a part of the local stack: `python -m local.aws`, moto's server on a free port.

A process of its own, so that the functions do not share its interpreter lock.
"""

import logging
import os

from moto.server import ThreadedMotoServer

from local.parent_watch import ParentWatch


def main() -> None:
    """Serve until the starter ends."""
    parent = ParentWatch()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # else a line per request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ["MOTO_PORT"] = str(port)  # the queue's URL names it
    parent.ready(endpoint=f"http://{host}:{port}")
    parent.wait()
    os._exit(0)  # its threads are not worth waiting for: everything is in memory


if __name__ == "__main__":
    main()
