"""HTTPS in front of a plain HTTP server."""

import socket
import ssl
from pathlib import Path
from typing import override
from urllib.parse import urlsplit

from doubles.tcp_proxy import TcpProxy
from tests.support import certificate


class TlsFront(TcpProxy):
    """Accepts TLS connections on its own `port` and forwards their content to a local one, as a context manager."""

    def __init__(self, port: int, folder: Path) -> None:
        super().__init__(f"http://127.0.0.1:{port}")
        self.port = urlsplit(self.url).port or 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*certificate.make(folder))
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3

    @override
    def accepted(self, client: socket.socket) -> socket.socket:
        return self._context.wrap_socket(client, server_side=True)
