# SPDX-License-Identifier: Apache-2.0
"""What a party's process logs: which records are written to its stderr, and in which form. Knows no door."""

from __future__ import annotations

import logging

SHOWN = ("DEBUG", "INFO")
"""Levels at which the driver is shown what parties print and log."""

_TALKATIVE = ("absl", "asyncio", "filelock", "fsspec", "h5py", "jax", "matplotlib", "PIL", "ray", "tensorflow", "torch")
"""Loggers of packages, which tell of themselves below warnings, and of nothing that the user's code says."""


def write_logs(level: str) -> None:
    """Lets this process's loggers write from `level` on; below warnings the user's own loggers, too.

    Comes after the process's streams were taken over: a handler keeps the stream that it finds.

    Args:
        level: A level of `logging`.
    """
    logging.getLogger("fedray").setLevel(level)
    if level not in SHOWN:
        return  # warnings are written by themselves
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
