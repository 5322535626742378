"""The Treasure Data double, as one part of the local stack: `python -m local.td_server FOLDER --port PORT`."""

import argparse
from pathlib import Path
from threading import Lock

from doubles.http_server import HttpServer
from doubles.treasure_data import Request, Response, TreasureData
from local.journal import Journal, RecordedClock
from local.parent_watch import ParentWatch


class LastingTreasureData:
    """The double, with a journal: after a restart it still has everything that it acknowledged.

    Args:
        folder: the folder of the journal.
    """

    def __init__(self, folder: Path) -> None:
        self._clock = RecordedClock()
        self._td = TreasureData(clock=self._clock)
        self._lock = Lock()
        self._journal = Journal(folder / "treasure-data.journal")
        for at, request in self._journal.requests():
            self._carry_out(request, at)

    def handle(self, request: Request) -> Response:
        """Execute a request. If it changed something, it is in the journal when this returns."""
        with self._lock:
            at = self._clock.now()
            response = self._carry_out(request, at)
            if request.method != "GET" and response.status < 400 and response.drop is None:
                self._journal.append(at, request)
        return response

    def _carry_out(self, request: Request, at: float) -> Response:
        self._clock.at = at
        try:
            return self._td.handle(request)
        finally:
            self._clock.at = None


def main() -> None:
    """Serve until the parent process ends."""
    parent = ParentWatch()
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    td = LastingTreasureData(options.folder)
    with HttpServer(td.handle, port=options.port) as server:
        parent.ready(url=server.url, port=server.port)
        parent.wait()


if __name__ == "__main__":
    main()
