# SPDX-License-Identifier: Apache-2.0
"""The driver's notation: devices, the names of what they hold, and how values move."""

from fedray.device.moving import describe, reveal, to, wait
from fedray.device.proxy import ProxyObject, proxy
from fedray.device.pyu import PYU, PYUObject
from fedray.device.spu.device import SPU
from fedray.device.spu.handle import SPUObject

__all__ = ["PYU", "SPU", "PYUObject", "ProxyObject", "SPUObject", "describe", "proxy", "reveal", "to", "wait"]
