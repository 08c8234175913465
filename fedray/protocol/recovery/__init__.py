# SPDX-License-Identifier: Apache-2.0
"""Part B: a double-masked sum that survives dropouts and a coordinator that lies (SECAGG sections 6, 7 and 10)."""

from fedray.protocol.recovery.collector import RecoveryCollector
from fedray.protocol.recovery.coordinator import RecoveryCoordinator
from fedray.protocol.recovery.key_relay import KeyRelay
from fedray.protocol.recovery.shield import RecoveryShield
from fedray.protocol.recovery.thresholds import propose

__all__ = ["KeyRelay", "RecoveryCollector", "RecoveryCoordinator", "RecoveryShield", "propose"]
