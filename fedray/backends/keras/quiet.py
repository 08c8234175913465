# SPDX-License-Identifier: Apache-2.0
"""Quiet: keeps a framework's start-up chatter off the screen, and nothing else.

TensorFlow writes some lines to file descriptor 2 from C++, past `sys.stderr` and past its own log level. While the
block runs, the descriptor leads to a file; afterwards every line that is not known chatter is written where it was
meant to go, so errors and other threads' words are late but not lost. Knows no framework.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

CHATTER = re.compile(
    rb"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWE] |[IWE]0000 |WARNING: All log messages before absl::InitializeLog"
    rb"|To enable the following instructions:)"
)
"""First bytes of the lines that TensorFlow and absl write while they start."""


@contextmanager
def quiet() -> Iterator[None]:
    """Drops known chatter written to file descriptor 2 in the block; passes everything else on when it ends."""
    try:
        kept = os.dup(2)
    except OSError:  # No such descriptor: nothing to keep quiet.
        yield
        return
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            rest = b"".join(line for line in caught if not CHATTER.match(line))
            while rest:
                rest = rest[os.write(2, rest) :]
