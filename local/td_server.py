"""The Treasure Data double, as one part of the local stack: `python -m local.td_server`."""

from doubles.treasure_data import Server, TreasureData
from local.parent_watch import ParentWatch


def main() -> None:
    """Serve until the parent process ends."""
    parent = ParentWatch()
    with Server(TreasureData().handle) as server:
        parent.ready(url=server.url)
        parent.wait()


if __name__ == "__main__":
    main()
