# SPDX-License-Identifier: Apache-2.0
"""A link with a delay and a rate, in the place of a machine's own; the kernel of a container seldom has `netem`.

    python slow_link.py NAMESPACE DEVICE BRIDGE ADDRESS DELAY_MS MBIT_PER_S

Two taps, one in the namespace and one at the bridge, and this process between them: what comes in at one is kept for
the time that it would take, and goes out at the other. What finds a queue full is dropped, as a router does.
"""

import collections
import ctypes
import fcntl
import os
import select
import struct
import subprocess
import sys
import time

_TUNSETIFF, _TAP_WITHOUT_HEADER = 0x400454CA, 0x1002
_QUEUE_SECONDS = 0.5


def tap(name: str) -> int:
    """Returns the descriptor of a new tap."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", name.encode(), _TAP_WITHOUT_HEADER))
    return device


def tap_within(namespace: str, name: str) -> int:
    """Returns the descriptor of a new tap in another network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    other = os.open(f"/var/run/netns/{namespace}", os.O_RDONLY)
    if libc.setns(other, 0):
        raise OSError(ctypes.get_errno(), "setns")
    try:
        return tap(name)
    finally:
        libc.setns(own, 0)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def main(namespace: str, device: str, bridge: str, address: str, delay_ms: str, mbit: str) -> None:
    delay, rate = float(delay_ms) / 1e3, float(mbit) * 1e6 / 8
    ip("link", "del", device)  # and its other end with it
    outer, inner = tap(device), tap_within(namespace, "eth0")
    ip("link", "set", device, "txqueuelen", "2000", "master", bridge, "up")
    ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "eth0")
    ip("-n", namespace, "link", "set", "eth0", "txqueuelen", "2000", "up")
    ip("-n", namespace, "route", "add", "default", "dev", "eth0")
    print("ready", flush=True)
    relay(outer, inner, delay, rate)


def relay(outer: int, inner: int, delay: float, rate: float) -> None:
    """Passes frames on for ever.

    Args:
        outer: One end.
        inner: The other one.
        delay: Seconds each way.
        rate: Bytes a second each way.
    """
    queues: dict[int, collections.deque[tuple[float, bytes]]] = {end: collections.deque() for end in (outer, inner)}
    free, other = dict.fromkeys(queues, 0.0), {outer: inner, inner: outer}
    poll = select.poll()
    for end in queues:
        poll.register(end, select.POLLIN)
    while True:
        now = time.monotonic()
        due = [queue[0][0] - now for queue in queues.values() if queue]
        ready = poll.poll(max(0, min(due)) * 1e3 if due else 1000)
        now = time.monotonic()
        for end, _ in ready:
            for _ in range(64):
                try:
                    frame = os.read(end, 70_000)
                except OSError:
                    break
                if free[end] - now > _QUEUE_SECONDS:
                    continue
                free[end] = max(now, free[end]) + len(frame) / rate
                queues[end].append((free[end] + delay, frame))
        now = time.monotonic()
        for end, queue in queues.items():
            while queue and queue[0][0] <= now:
                try:
                    os.write(other[end], queue.popleft()[1])
                except OSError:
                    break


if __name__ == "__main__":
    main(*sys.argv[1:])
