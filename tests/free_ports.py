# SPDX-License-Identifier: Apache-2.0
"""Ports for servers that tests start, such as no outgoing connection is given: one of those could take a port first."""

import contextlib
import random
import socket

AMONG = range(20_000, 32_768)
"""Above those that Ray keeps for its workers, of which it takes none for anything else."""


def free_ports(count: int, among: range = AMONG) -> list[int]:
    """Returns different free ports of 127.0.0.1, at random: two runs of the tests at once seldom try the same."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        for port in random.SystemRandom().sample(among, len(among)):
            if len(found) < count:
                with contextlib.suppress(OSError):  # somebody listens there
                    held.enter_context(socket.create_server(("127.0.0.1", port)))
                    found.append(port)
    assert len(found) == count, "every port is taken"
    return found


def free_block(first: range, width: int) -> int:
    """Returns where a block of free ports begins."""
    for one in random.SystemRandom().sample(first, len(first)):
        with contextlib.suppress(AssertionError):
            free_ports(width, range(one, one + width))
            return one
    raise AssertionError("every block has a port that is taken")
