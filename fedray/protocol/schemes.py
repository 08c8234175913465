# SPDX-License-Identifier: Apache-2.0
"""The table of schemes: which Shield and which Collector a Config's part stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedray.protocol.masking import MaskingCollector, MaskingShield
from fedray.protocol.plain import PlainCollector, PlainShield
from fedray.protocol.scheme import Collector, Shield


@dataclass(frozen=True, slots=True)
class Scheme:
    """The two ends of one private sum.

    Attributes:
        shield: (config, name, identity, roster, policy, memory) -> the party's end.
        collector: (config, view, number, manifest) -> the server's end of one round.
        protected: Whether what leaves a party hides its contribution.
    """

    shield: Callable[..., Shield]
    collector: Callable[..., Collector]
    protected: bool = True


SCHEMES: Mapping[str, Scheme] = {
    "masking": Scheme(MaskingShield, MaskingCollector),
    "plain": Scheme(PlainShield, PlainCollector, protected=False),
}
