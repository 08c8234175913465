# SPDX-License-Identifier: Apache-2.0
"""Neural networks: `FLModel` and the history its `fit` returns."""

from fedray.ml.nn.fl_model import FLModel
from fedray.ml.nn.history import Dropout, FaultRecord, History, Reset

__all__ = ["Dropout", "FLModel", "FaultRecord", "History", "Reset"]
