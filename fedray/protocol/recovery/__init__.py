# SPDX-License-Identifier: Apache-2.0
"""Scheme recovery (SECAGG sections 6, 7, 10): a double-masked sum that survives dropouts and a lying coordinator."""

from fedray.protocol.recovery.collector import RecoveryCollector
from fedray.protocol.recovery.coordinator import RecoveryCoordinator
from fedray.protocol.recovery.key_relay import KeyRelay
from fedray.protocol.recovery.shield import RecoveryShield
from fedray.protocol.recovery.thresholds import propose

__all__ = ["KeyRelay", "RecoveryCollector", "RecoveryCoordinator", "RecoveryShield", "propose"]
