# SPDX-License-Identifier: Apache-2.0
"""What an operator's rules mean for a party's own process: threads, memory, and where its output goes.

Only where a party has a process to itself.
"""

from __future__ import annotations

import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

from fedray.party.house.in_force import InForce
from fedray.party.house.turns import home
from fedray.types import PartyConfig, PartyName


@dataclass(frozen=True, slots=True)
class Settled:
    """How a party's process was settled.

    Attributes:
        config: What the driver tells the party, narrowed.
        refusal: Why the party must refuse every call, if it must. Raised, that would end the process, and nobody would
            learn why.
        printing_stays: Whether output goes to a file of this machine, which nobody shows to the driver.
    """

    config: PartyConfig
    refusal: Exception | None = None
    printing_stays: bool = False


def settle(config: PartyConfig) -> Settled:
    """Puts the operator's limit of memory, and where output goes, in force in this process.

    Args:
        config: What the driver tells the party.
    """
    try:
        found = InForce.of(config)
        rules = found.rules
        if rules is not None and rules.memory is not None:
            # What a process writes to, and not its addresses: Ray maps the whole of its shared memory, which is
            # nobody's own. Beyond the limit the call that asks for memory fails, and the party goes on. On top of what
            # there is: each of Ray's many threads has 8 MB set aside for its stack, most of which is never used.
            most = _set_aside() + rules.memory
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        if rules is not None and not rules.printing:
            _print_here(rules.name)
            return Settled(found.config, printing_stays=True)
    except Exception as error:  # whatever it is, the party must not go on without the operator's rules
        return Settled(config, error)
    return Settled(found.config)


def _set_aside() -> int:
    """Returns how many bytes this process may write to so far, whether it does or not; 0 where there is no /proc."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(lines["VmData"].split()[0]) << 10
    except (OSError, KeyError, ValueError):
        return 0


def _print_here(party: PartyName) -> None:
    folder = home() / "printed"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(folder / f"{party}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    for number, name in ((1, "stdout"), (2, "stderr")):
        getattr(sys, name).flush()
        # The descriptors, since libraries in C write to them: Ray shows the driver what is in the files behind them.
        os.dup2(file, number)
        # And Python's own stream: Ray has put one of its own there, with a way of its own.
        setattr(sys, name, open(number, "w", closefd=False, buffering=1, errors="backslashreplace"))  # noqa: SIM115
    os.close(file)
