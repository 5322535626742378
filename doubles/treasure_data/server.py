"""The double behind real sockets: persistent connections, and connections that end as a fault says."""

from collections.abc import Callable
from threading import TIMEOUT_MAX

from doubles.http_server import HangUp, HttpServer, Reply, Request
from doubles.treasure_data.fault import Kind
from doubles.treasure_data.response import Response


class Server(HttpServer):
    """A server whose `handle` is called from many threads.

    A listening socket cannot refuse the connection of one request, so that the drops `refuse` and `unreachable` reset
    it. Stop the server for a real refusal.
    """

    def __init__(self, handle: Callable[[Request], Response], *, port: int = 0) -> None:
        self._handle = handle
        super().__init__(self._respond, port=port)

    def _respond(self, request: Request) -> Reply | HangUp:
        response = self._handle(request)
        if response.delay:
            self.stopping.wait(min(response.delay, TIMEOUT_MAX))
        if response.drop == Kind.CLOSE or self.stopping.is_set():
            return HangUp.CLOSE
        if response.drop is not None:
            return HangUp.RESET
        return Reply(response.status, tuple(response.headers.items()), response.body)
