# SPDX-License-Identifier: Apache-2.0
"""Part B: a double-masked sum that survives dropouts and a coordinator that lies (SECAGG sections 6, 7 and 10)."""

from fedray.protocol.recovery.collector import Fault, RecoveryCollector
from fedray.protocol.recovery.relay import Relay
from fedray.protocol.recovery.server import RecoveryServer
from fedray.protocol.recovery.shield import RecoveryShield
from fedray.protocol.recovery.terms import propose

__all__ = ["Fault", "RecoveryCollector", "RecoveryServer", "RecoveryShield", "Relay", "propose"]
