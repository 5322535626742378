"""AWS, as one part of the local stack: `python -m local.aws` runs moto's server on a free port.

It is a separate process so that it does not compete with the functions for the interpreter lock.
"""

import logging
import os

from moto.server import ThreadedMotoServer

from local.parent_watch import ParentWatch


def main() -> None:
    """Serve until the parent process ends."""
    parent = ParentWatch()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # otherwise it logs every request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ["MOTO_PORT"] = str(port)  # moto puts it into queue URLs
    parent.ready(endpoint=f"http://{host}:{port}")
    parent.wait()
    os._exit(0)  # do not wait for its threads: all of its state is in memory


if __name__ == "__main__":
    main()
