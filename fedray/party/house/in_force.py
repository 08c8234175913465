# SPDX-License-Identifier: Apache-2.0
"""InForce: a party's configuration after its operator's `party.toml`, which only narrows what the driver says.

Knows where the file is and who may write it. Does not know how it is written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedray.errors import PlanError
from fedray.party.house.house_rules import HouseRules
from fedray.party.keys import credentials
from fedray.party.keys.own_files import OTHERS_WRITE, read_own, real_folder
from fedray.types import PartyConfig, PartyName

VARIABLE = "FEDRAY_PARTY"
"""Set where a party's process starts, it names the machine's `party.toml`, or a folder with one per party."""

FILE = "party.toml"


@dataclass(frozen=True, slots=True)
class InForce:
    """What a party that starts keeps to.

    Attributes:
        config: The driver's words, narrowed.
        rules: The operator's; None where the machine has no file.
        environment: The process's variables, with the operator's key folder among them.
    """

    config: PartyConfig
    rules: HouseRules | None
    environment: Mapping[str, str]

    @classmethod
    def of(cls, config: PartyConfig, environment: Mapping[str, str] | None = None) -> InForce:
        """Returns what is in force for a party.

        Args:
            config: What the driver tells it.
            environment: Variables of its process; None for those of this one.

        Raises:
            PlanError: The file is missing, not the operator's own, wrong, or another party's.
        """
        around = dict(os.environ) if environment is None else dict(environment)
        rules = rules_of(config.name, around)
        if rules is None:
            return cls(config, None, around)
        if rules.keys is not None:
            _one_key_folder(rules.keys, around)
            around[credentials.VARIABLE] = rules.keys
        egress = "strict" if rules.egress == "strict" else config.egress
        threads = config.threads if rules.threads is None else min(config.threads, rules.threads)
        return cls(replace(config, egress=egress, threads=threads), rules, around)

    def told(self) -> dict[str, Any] | None:
        """Returns what the driver is told; None where everything is as it said."""
        if self.rules is None:
            return None
        return self.rules.told() | {"egress": self.config.egress, "threads": self.config.threads}


def rules_of(party: PartyName, environment: Mapping[str, str] | None = None) -> HouseRules | None:
    """Returns what the operator of this machine has laid down for a party, or None.

    Args:
        party: Its name.
        environment: Variables of its process; None for those of this one.

    Raises:
        PlanError: As `InForce.of`.
    """
    around = os.environ if environment is None else environment
    if VARIABLE not in around:
        return None
    named = Path(os.path.expanduser(around[VARIABLE]))
    # Empty as well: whoever set it wanted a file, and having none would allow everything.
    if not named.is_absolute():
        raise PlanError(f"{VARIABLE} is {around[VARIABLE]!r}; expected the absolute path of a {FILE}")
    path = named / party / FILE if named.is_dir() else named
    rules = read(path)
    if rules.name != party:
        raise PlanError(
            f"this machine's party is {rules.name!r} ({path}), and the driver started {party!r} here. Give {party!r} a "
            f"node of its own with 'fedray party start', or leave {party!r} out"
        )
    return rules


def read(path: Path) -> HouseRules:
    """Returns what a `party.toml` says.

    Raises:
        PlanError: It is missing, others may write it or put another one in its place, or it is wrong.
    """
    folder = real_folder(path.parent)
    try:
        content = read_own(folder / path.name, OTHERS_WRITE)
    except FileNotFoundError:
        raise PlanError(f"{path} is not there; 'fedray party init NAME' writes one") from None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise PlanError(f"{path} is no UTF-8 text") from None
    return HouseRules.read(text, str(path), str(folder))


def _one_key_folder(named: str, environment: Mapping[str, str]) -> None:
    also = environment.get(credentials.VARIABLE)
    if also is not None and Path(os.path.expanduser(also)).resolve() != Path(os.path.expanduser(named)).resolve():
        raise PlanError(
            f"{FILE} names the key folder {named}, and {credentials.VARIABLE} names {also}. Unset the variable, or "
            "leave keys out of the file"
        )
