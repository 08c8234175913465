# SPDX-License-Identifier: Apache-2.0
"""TensorFlow and Keras as they start in a party: the only file that imports them, when the first model is made."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
from typing import Any

from fedray.backends.collector import uncollected
from fedray.backends.generators import BUILDING, generators_kept
from fedray.backends.keras.quiet import quiet
from fedray.errors import PlanError

_LOG = logging.getLogger("fedray.backends")


def frameworks(threads: int) -> tuple[Any, Any]:
    """Returns the tensorflow and keras modules, imported without chatter, TensorFlow set to so many threads.

    Raises:
        PlanError: Keras runs on another framework.
    """
    with BUILDING, generators_kept(), uncollected("tensorflow"):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        with quietly():
            import keras
            import tensorflow as tf

            try:
                tf.config.threading.set_intra_op_parallelism_threads(threads)
                tf.config.threading.set_inter_op_parallelism_threads(threads)
            except RuntimeError:
                _say_running(threads)
            tf.zeros(())  # The first operation has chatter of its own.
    if keras.config.backend() != "tensorflow":
        raise PlanError(f"Keras: expected backend 'tensorflow', found {keras.config.backend()!r}; unset KERAS_BACKEND")
    return tf, keras


@functools.cache
def _say_running(threads: int) -> None:
    """Says once in a process, where all parties may be (`inline`), that TensorFlow has threads of its own."""
    _LOG.warning(
        "TensorFlow is already running in this process and keeps its number of threads, not %d; call sf.init before "
        "anything of TensorFlow's",
        threads,
    )


def quietly() -> contextlib.AbstractContextManager[None]:
    """Returns a block that keeps TensorFlow's start-up chatter off the screen, where it has not started yet."""
    return contextlib.nullcontext() if "tensorflow" in sys.modules else quiet()
