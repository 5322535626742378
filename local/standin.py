"""The double of Treasure Data as a part of the local stack: `python -m local.standin`."""

from doubles.treasure_data import Server, TreasureData
from local.lifeline import Lifeline


def main() -> None:
    """Serve until the starter ends."""
    lifeline = Lifeline()
    with Server(TreasureData().handle) as server:
        lifeline.ready(url=server.url)
        lifeline.wait()


if __name__ == "__main__":
    main()
