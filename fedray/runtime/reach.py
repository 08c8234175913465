# SPDX-License-Identifier: Apache-2.0
"""Whether anybody answers where a cluster is said to be. Imports no Ray, which would try for minutes, and complain."""

from __future__ import annotations

import os
import socket

_KNOCK_SECONDS = 5.0


def knock(address: str) -> None:
    """Knocks at a cluster's address; `"auto"` stands for the one in RAY_ADDRESS.

    Raises:
        OSError: Nobody opens.
    """
    named = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    host, colon, port = named.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_SECONDS).close()
