# SPDX-License-Identifier: Apache-2.0
"""Scheme sharing: additive shares between compute parties that open agreed sums and nothing else. Pure."""

from fedray.protocol.sharing.adder import ShareAdder
from fedray.protocol.sharing.collector import SharingCollector, SharingCoordinator
from fedray.protocol.sharing.shield import SharingShield

__all__ = ["ShareAdder", "SharingCollector", "SharingCoordinator", "SharingShield"]
