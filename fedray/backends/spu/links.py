# SPDX-License-Identifier: Apache-2.0
"""How many bytes the library's links have sent, by the peer that they lead to. It keeps no count of its own.

The kernel counts what each TCP connection has sent. Knows the addresses of the compute parties, and this process's open
sockets; nothing of what is in the messages.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Iterator, Mapping, Sequence

from fedray.types import PartyName

_INFO_BYTES = 256
# Where Linux (4.19 and later) has bytes sent, and of these bytes sent again, in its `tcp_info`.
_SENT_AT, _AGAIN_AT = 200, 208

Sent = Mapping[str, int]
"""To whom -> bytes. An answer over a connection that the other end has made goes to whoever may be there."""


def countable() -> bool:
    """Returns whether this system counts them."""
    return hasattr(socket, "TCP_INFO") and os.path.isdir("/proc/self/fd")


def sent(addresses: Sequence[tuple[PartyName, str]], place: int) -> dict[str, int]:
    """Returns what this process has sent to the other compute parties, over the connections that are open.

    Args:
        addresses: Name, and host and port, of each compute party.
        place: Which of them this is.
    """
    ends = {end: party for index, (party, at) in enumerate(addresses) if index != place for end in _resolved(at)}
    own = {port for _, port in _resolved(addresses[place][1])}
    total: dict[str, int] = {}
    for connection in _connections():
        with connection, contextlib.suppress(OSError):
            here, there = _end(connection.getsockname()), _end(connection.getpeername())
            party = ends.get(there)
            if party is None and here[1] in own:
                # They called us, from a port of chance: on one host that may be any of them.
                party = " or ".join(name for (host, _), name in ends.items() if host == there[0]) or there[0]
            if party is not None:
                total[party] = total.get(party, 0) + _sent(connection)
    return total


def since(before: Sent, after: Sent) -> dict[str, int]:
    """Returns what was sent in between; where a connection was made anew, what went over the new one."""
    return {
        party: count - (before.get(party, 0) if count >= before.get(party, 0) else 0) for party, count in after.items()
    }


def _connections() -> Iterator[socket.socket]:
    """Yields a duplicate of every connected TCP socket of this process."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # closed by now
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            duplicate = socket.socket(fileno=os.dup(int(name)))
            if duplicate.type == socket.SOCK_STREAM and duplicate.family in (socket.AF_INET, socket.AF_INET6):
                yield duplicate
            else:
                duplicate.close()


def _sent(connection: socket.socket) -> int:
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    if len(info) < _AGAIN_AT + 8:
        return 0
    count, again = (int(struct.unpack_from("=Q", info, place)[0]) for place in (_SENT_AT, _AGAIN_AT))
    return count - again


def _resolved(address: str) -> set[tuple[str, int]]:
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, ValueError):  # then nothing was sent there either
        return set()
    return {_end(end) for *_, end in found}


def _end(address: tuple[object, ...]) -> tuple[str, int]:
    # An IPv4 address that an IPv6 socket shows is the same host.
    return str(address[0]).removeprefix("::ffff:"), int(str(address[1]))
