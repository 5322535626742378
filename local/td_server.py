"""The Treasure Data double, as one part of the local stack: `python -m local.td_server FILE`."""

import sys

from doubles.treasure_data import Server, TreasureData
from local.parent_watch import ParentWatch


def main() -> None:
    """Serve until the parent process ends. Rows are stored in the file."""
    parent = ParentWatch()
    td = TreasureData(sys.argv[1])
    with Server(td.handle) as server:
        parent.ready(url=server.url)
        parent.wait()
    td.close()


if __name__ == "__main__":
    main()
