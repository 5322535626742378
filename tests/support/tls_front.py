"""TLS in front of a server that speaks none, as a context manager."""

import socket
import ssl
import threading
from pathlib import Path
from types import TracebackType
from typing import Self


class TlsFront:
    """Takes TLS connections on a free port and hands their bytes on.

    Args:
        port: of the server behind it, on loopback.
        certificate: path of its certificate.
        key: path of the certificate's key.

    Attributes:
        port: where it listens.
    """

    def __init__(self, port: int, certificate: Path, key: Path) -> None:
        self._target = port
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for each in [self._listener, *self._sockets]:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
                client = self._context.wrap_socket(plain, server_side=True)
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [client, server]
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=_pump, args=(source, target), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass
