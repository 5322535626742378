"""A TCP proxy that can hang, or make a server reachable at another address."""

import socket
import threading
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit


class TcpProxy:
    """A context manager that forwards bytes between a port, at `url`, and a server. Port 0 is any free port.

    Attributes:
        hanging: whether it accepts new connections and never answers them.
    """

    def __init__(self, target: str, host: str = "127.0.0.1", port: int = 0) -> None:
        address = urlsplit(target)
        self._target = (address.hostname or "", address.port or 0)
        self._listener = socket.create_server((host, port))
        self.url = f"http://{host}:{self._listener.getsockname()[1]}"
        self.hanging = False
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for each in [self._listener, *self._sockets]:
            each.close()

    def accepted(self, client: socket.socket) -> socket.socket:
        """Return the socket to read from and write to for a new connection."""
        return client

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                if not self.hanging:
                    threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError):  # one of them is closed
            client, server = self.accepted(client), socket.create_connection(self._target)
            self._sockets += [client, server]
            threading.Thread(target=self._copy, args=(server, client), daemon=True).start()
            self._copy(client, server)

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):  # one of them is closed
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
