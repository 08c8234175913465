# SPDX-License-Identifier: Apache-2.0
"""Parties with lines between nodes, all on this machine's loopback, and what may stand between two of them."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedray.party.keys.line_keys import LineKeys
from fedray.protocol.crypto.keys import generate_identity, public_bytes
from fedray.runtime.far.calling import GREETING, MAGIC, Address, FarRef
from fedray.runtime.far.lines import FarLines
from fedray.runtime.line import reply

PLACE = "127.0.0.1 0-0"


class Parties:
    """Some parties, each with a roster of all.

    Args:
        answers: Party -> what it answers a message with.
    """

    def __init__(self, **answers: Callable[..., Any]) -> None:
        self.identities: dict[str, Ed25519PrivateKey] = {name: generate_identity() for name in answers}
        self.roster = {name: public_bytes(key) for name, key in self.identities.items()}
        self.lines = {name: self.made(name, answer) for name, answer in answers.items()}
        self.addresses = {name: lines.address for name, lines in self.lines.items()}
        self.connect()

    def made(self, name: str, answer: Callable[..., Any], identity: Ed25519PrivateKey | None = None) -> FarLines:
        """Returns the lines of a party, or of somebody who has another key under its name."""
        keys = LineKeys(name, identity or self.identities[name], self.roster)

        def answered(message: Any, caller: str) -> Any:
            return reply(name, lambda _call, _key, sender, body: answer(sender, body), message, caller)

        return FarLines(name, keys, answered, PLACE)

    def connect(self, **elsewhere: Address) -> None:
        """Lets all know where all are called; of some another place may be said."""
        for name, lines in self.lines.items():
            others = self.addresses | elsewhere
            lines.connect({party: address for party, address in others.items() if party != name})

    def ask(self, caller: str, party: str, body: Any, seconds: float = 20) -> Any:
        """Returns what a party answers."""
        return FarLines.take(self.send(caller, party, body), seconds)

    def send(self, caller: str, party: str, body: Any, sender: str | None = None) -> FarRef:
        ref = self.lines[caller].send(party, "1:send", "key", sender or caller, body)
        assert ref is not None
        return ref

    def close(self) -> None:
        for lines in self.lines.values():
            lines.close()


class Relay:
    """Stands between a caller and a port, and passes bytes on until it is told to cut.

    Args:
        to: Where to.
        cuts: After how many bytes to the port each connection is cut, one after another; None, or no more: never.
    """

    def __init__(self, to: Address, cuts: Iterable[int | None] = ()) -> None:
        self._to, self._cuts = to, iter(cuts)
        self.seen = bytearray()
        self.back = bytearray()
        self.connections = 0
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = replace(to, port=self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Cuts what goes over it now."""
        for line in self._open:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()
        self._open.clear()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                self.connections += 1
                called = socket.create_connection((self._to.host, self._to.port))
                self._open += [caller, called]
                limit = next(self._cuts, None)
                threading.Thread(target=self._pass, args=(caller, called, self.seen, limit), daemon=True).start()
                threading.Thread(target=self._pass, args=(called, caller, self.back, None), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, seen: bytearray, limit: int | None) -> None:
        with contextlib.suppress(OSError):
            passed = 0
            while content := source.recv(1 << 16 if limit is None else min(1 << 16, limit - passed)):
                seen += content
                passed += len(content)
                target.sendall(content)
                if passed == limit:
                    break
        for line in (source, target):
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)


def dialled(found: Parties, *, identity: Any = None, version: Any = None) -> ssl.SSLSocket:
    """Returns a connection to bob by somebody with a key of their own, or alice's."""
    keys = LineKeys("alice", identity or found.identities["alice"], found.roster)
    keys.learn({"bob": found.addresses["bob"].certificate})
    made = keys.context(answering=False)
    if version is not None:
        made.minimum_version = made.maximum_version = version
    raw = socket.create_connection(("127.0.0.1", found.addresses["bob"].port), 10)
    return made.wrap_socket(raw)


def is_hung_up_on(line: ssl.SSLSocket, greeting: bytes) -> bool:
    try:
        line.sendall(greeting)
        return line.recv(1) == b""
    except (ssl.SSLError, ConnectionError):
        return True
    finally:
        line.close()


def everything(found: Parties, content: bytes) -> bytes:
    """Returns what bob says to bytes, until he hangs up."""
    heard = b""
    with socket.create_connection(("127.0.0.1", found.addresses["bob"].port), 10) as line:
        line.sendall(content)
        with contextlib.suppress(ConnectionResetError):
            while received := line.recv(1 << 16):
                heard += received
    return heard


def greeting(found: Parties, name: bytes = b"alice", mark: bytes | None = None, magic: bytes = MAGIC) -> bytes:
    own = found.addresses["alice"].mark
    return GREETING.pack(magic, found.addresses["bob"].mark if mark is None else mark, own, len(name)) + name
