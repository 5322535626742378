"""Treasure Data's stand-in as a part of the local stack: `python -m local.standin FILE`."""

import sys

from doubles.treasure_data import Server, TreasureData
from local.lifeline import Lifeline


def main() -> None:
    """Serve until the starter ends; rows are kept in the file."""
    lifeline = Lifeline()
    td = TreasureData(sys.argv[1])
    with Server(td.handle) as server:
        lifeline.ready(url=server.url)
        lifeline.wait()
    td.close()


if __name__ == "__main__":
    main()
