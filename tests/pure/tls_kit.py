# SPDX-License-Identifier: Apache-2.0
"""What answers TLS greetings as a node does, and certificates that have run out."""

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedray.runtime.nodes import certificates


class Server:
    """Answers TLS handshakes as a node does, or takes connections and says nothing that TLS knows."""

    def __init__(self, folder: Path | None) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._context = None
        if folder is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(folder / "node.crt", folder / "node.key")
            self._context.load_verify_locations(folder / "ca.crt")
            self._context.verify_mode = ssl.CERT_REQUIRED
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._socket.accept()
            except OSError:
                return
            try:
                if self._context is None:
                    line.recv(100)
                    line.sendall(b"HTTP/1.1 400 what is that?\r\n\r\n")
                else:
                    line = self._context.wrap_socket(line, server_side=True)
                    line.sendall(b"hello")
                    line.recv(1)
            except OSError:
                pass
            line.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def variables(folder: Path) -> dict[str, str]:
    names = {"CA_CERT": "ca.crt", "SERVER_CERT": "node.crt", "SERVER_KEY": "node.key"}
    return {"RAY_USE_TLS": "1"} | {f"RAY_TLS_{name}": str(folder / file) for name, file in names.items()}


def issue_old(authority: Path, out: Path, name: str, host: str, ended: timedelta = timedelta(days=1)) -> datetime:
    """Issues a certificate that ran out some time ago, or will so much later; returns when."""
    begun = certificates._begun

    def ending(*what: object) -> object:
        builder = begun(*what)
        builder._not_valid_after = None
        return builder.not_valid_after(datetime.now(UTC) - ended)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certificates, "_GRACE", timedelta(days=3))
        patch.setattr(certificates, "_begun", ending)
        return certificates.issue(authority, out, name, [host])
