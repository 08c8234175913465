# SPDX-License-Identifier: Apache-2.0
"""Federated learning as an ordinary notebook: one Ray actor per party, sums that open and nothing else.

Importing this package starts nothing, and imports neither Ray nor a machine-learning framework.

The examples in this package's docstrings take it for granted that these lines have run. `address="inline"` keeps all
parties in one process; leave it out, and each gets a process of its own:

    >>> import numpy as np
    >>> import fedray as sf
    >>> sf.init(["alice", "bob", "charlie"], address="inline", seed=7)
    >>> alice, bob, charlie = sf.PYU("alice"), sf.PYU("bob"), sf.PYU("charlie")
"""

from fedray import errors, utils
from fedray.data.statistics import use_by_default as _use_by_default
from fedray.device import PYU, SPU, PYUObject, SPUObject, proxy, reveal, to, wait
from fedray.ml.nn.checkpoints.checkpoint import Checkpoint
from fedray.protocol.policy import Policy
from fedray.runtime.lifetime import in_force, init, ledger, shutdown
from fedray.security.aggregation import SecureAggregator as _SecureAggregator
from fedray.utils import testing as _testing  # noqa: F401 (so that sf.utils.testing resolves)

__version__ = "0.1.0"

_use_by_default(_SecureAggregator)

__all__ = [
    "PYU",
    "SPU",
    "Checkpoint",
    "PYUObject",
    "Policy",
    "SPUObject",
    "errors",
    "in_force",
    "init",
    "ledger",
    "proxy",
    "reveal",
    "shutdown",
    "to",
    "utils",
    "wait",
]
