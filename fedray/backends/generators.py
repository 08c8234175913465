# SPDX-License-Identifier: Apache-2.0
"""The generators that belong to the whole process, which may be the user's notebook. Knows no framework."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

BUILDING = threading.RLock()
"""Held where anything draws from them, whatever framework does: parties that share a process take turns."""


@contextmanager
def generators_kept() -> Iterator[None]:
    """Puts Python's and NumPy's generators back as they were: the first import of TensorFlow draws from them too."""
    kept = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
