# SPDX-License-Identifier: Apache-2.0
"""What goes over a machine's link: every byte of TCP, as whoever holds the cable sees it. Needs root, on Linux."""

import contextlib
import socket
import struct
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from ipaddress import IPv4Address

_ALL = 0x0003  # every protocol
_BUFFER_FORCE = 33  # SO_RCVBUFFORCE
_BUFFER = 256 << 20

Flow = tuple[str, int, str, int]
"""Address and port of the sender, and of the receiver."""


@dataclass
class Stream:
    """One direction of one connection.

    Attributes:
        pieces: Sequence number -> payload; what was sent again stands here once.
    """

    pieces: dict[int, bytes] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """How many different bytes were sent."""
        if not self.pieces:
            return 0
        first = next(iter(self.pieces))
        ends = [((seq - first + (1 << 31)) % (1 << 32) - (1 << 31)) + len(data) for seq, data in self.pieces.items()]
        begins = [(seq - first + (1 << 31)) % (1 << 32) - (1 << 31) for seq in self.pieces]
        return max(ends) - min(begins)

    def content(self) -> bytes:
        """Returns its bytes, in order as they came."""
        return b"".join(self.pieces.values())


class Capture:
    """Listens at one network device until `stop`.

    Args:
        device: Its name.
    """

    def __init__(self, device: str) -> None:
        self.streams: dict[Flow, Stream] = defaultdict(Stream)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, _BUFFER_FORCE, _BUFFER)
        self._socket.bind((device, 0))
        self._socket.settimeout(0.2)
        self._open = True
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends it; all that has come by then is there."""
        self._open = False
        self._thread.join()
        self._socket.close()

    def finds(self, known: bytes) -> list[Flow]:
        """Returns in which streams some bytes can be read."""
        return [flow for flow, stream in self.streams.items() if known in stream.content()]

    def bytes_between(self, source: str, target: str, ports: range) -> int:
        """Returns how many bytes went from one machine to another on connections to ports of either."""
        return sum(
            stream.length
            for (sender, from_port, receiver, to_port), stream in self.streams.items()
            if (sender, receiver) == (source, target) and (from_port in ports or to_port in ports)
        )

    def _listen(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                self._take(self._socket.recv(1 << 17))
                continue
            if not self._open:
                return

    def _take(self, frame: bytes) -> None:
        if frame[12:14] != b"\x08\x00" or frame[23] != socket.IPPROTO_TCP:
            return
        head = 14 + 4 * (frame[14] & 15)
        end = 14 + struct.unpack(">H", frame[16:18])[0] if frame[16:18] != b"\0\0" else len(frame)
        from_port, to_port, seq = struct.unpack(">HHI", frame[head : head + 8])
        payload = frame[head + 4 * (frame[head + 12] >> 4) : end]
        flow = (str(IPv4Address(frame[26:30])), from_port, str(IPv4Address(frame[30:34])), to_port)
        if len(payload) >= len(self.streams[flow].pieces.get(seq, b"")) and payload:
            self.streams[flow].pieces[seq] = payload
