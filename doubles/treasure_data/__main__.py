"""Run the stand-in by itself: `python -m doubles.treasure_data --port 8899 --file .local/treasure_data.sqlite`."""

import signal
from threading import Event

import click

from doubles.treasure_data.core import TreasureData
from doubles.treasure_data.server import Server
from doubles.treasure_data.settings import API_KEY, Settings


@click.command()
@click.option("--port", default=0, help="The port; 0 is a free one.")
@click.option(
    "--file", "path", default=":memory:", help="The SQLite file that keeps the rows; none by default."
)
@click.option("--id-memory", default=3600.0, help="Seconds for which a unique_id is remembered.")
@click.option("--query-delay", default=0.0, help="Seconds from an import until queries see its rows.")
def main(port: int, path: str, id_memory: float, query_delay: float) -> None:
    """Run a stand-in of Treasure Data until it is interrupted."""
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    td = TreasureData(path, settings=Settings(id_memory=id_memory, query_delay=query_delay))
    with Server(td.handle, port) as server:
        click.echo(f"Treasure Data's stand-in listens at {server.url}, the API key is {API_KEY}")
        stop.wait()
    td.close()


if __name__ == "__main__":
    main()
