"""The Treasure Data double, as one part of the local stack: `python -m local.td_server --port PORT`."""

import argparse

from doubles.http_server import HttpServer
from doubles.treasure_data import TreasureData
from local.parent_watch import ParentWatch


def main() -> None:
    """Serve until the parent process ends."""
    parent = ParentWatch()
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    with HttpServer(TreasureData().handle, port=parser.parse_args().port) as server:
        parent.ready(url=server.url, port=server.port)
        parent.wait()


if __name__ == "__main__":
    main()
