# SPDX-License-Identifier: Apache-2.0
"""Who holds a model's rows and who sums for them: the arguments of `FLModel` that name parties, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedray.device import PYU
from fedray.errors import PlanError
from fedray.security.aggregation import Aggregator, SecureAggregator, SPUAggregator


def checked_devices(device_list: Any) -> tuple[PYU, ...]:
    """Returns the parties that hold rows.

    Raises:
        PlanError: It is no list of parties, or names one twice.
    """
    several = isinstance(device_list, Sequence) and not isinstance(device_list, str)
    if not several or not device_list or not all(isinstance(device, PYU) for device in device_list):
        raise PlanError(
            f"device_list: expected a list of the PYUs that hold rows, e.g. [sf.PYU('alice'), sf.PYU('bob')], found "
            f"{device_list!r}"
        )
    if len(set(device_list)) != len(device_list):
        raise PlanError(f"device_list: expected every party once, found {[device.name for device in device_list]}")
    return tuple(device_list)


def checked_aggregator(
    server: PYU | None, devices: tuple[PYU, ...], aggregator: Aggregator | SPUAggregator | None
) -> Aggregator:
    """Returns the aggregator of a model.

    Args:
        server: The party that sums; None takes the aggregator's.
        devices: The parties that hold rows.
        aggregator: How updates are summed; None is a secure one of these parties.

    Raises:
        PlanError: It is none, or speaks of other parties.
    """
    if server is not None and not isinstance(server, PYU):
        raise PlanError(f"server: expected a PYU such as sf.PYU('server'), found {type(server).__name__}")
    if aggregator is None:
        if server is None:
            raise PlanError("server: expected the PYU that sums, or an aggregator that names one; found neither")
        return SecureAggregator(server, devices)
    if isinstance(aggregator, SPUAggregator):
        return aggregator.bind(server, devices)
    if not isinstance(aggregator, Aggregator):
        raise PlanError(f"aggregator: expected a SecureAggregator or another aggregator, found {aggregator!r}")
    if server is not None and server != aggregator.server:
        raise PlanError(
            f"server: found {server.name}, but the aggregator's server is {aggregator.server.name}; leave server out, "
            "or pass the same"
        )
    if set(aggregator.participants) != set(devices):
        raise PlanError(
            f"aggregator: its participants are {sorted(p.name for p in aggregator.participants)}, but device_list is "
            f"{sorted(d.name for d in devices)}; they must be the same parties"
        )
    return aggregator
