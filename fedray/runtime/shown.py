# SPDX-License-Identifier: Apache-2.0
"""What parties print, as the driver shows it: each line with its party's name, and every line.

Knows which process is whose. Does not know how the lines get here, nor what may leave a party.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from tqdm import tqdm

from fedray.types import PartyName

_log = logging.getLogger("fedray")

Process: TypeAlias = tuple[str, int]
"""Address of a machine, and the number of a process there."""


class ShownOutput:
    """Prints lines as they come, from whatever thread.

    Args:
        parties: Process -> the party that it is.
    """

    def __init__(self, parties: Mapping[Process, PartyName]) -> None:
        self._parties = dict(parties)

    def show(self, process: Process, lines: Sequence[str], *, is_error: bool) -> None:
        """Prints lines of one process; of one that is no party, nothing.

        Args:
            process: Whose they are.
            lines: Without their ends.
            is_error: Whether they were written to stderr, and go there.
        """
        party = self._parties.get(process)
        if party is None or not lines:
            return
        # tqdm's, since a plain print would leave half a bar behind on the line above.
        tqdm.write("\n".join(f"{party}: {line}" for line in lines), file=sys.stderr if is_error else sys.stdout)


def show_parties(
    parties: Sequence[PartyName],
    places: Mapping[PartyName, Process],
    source: Callable[[Callable[[str, int, list[str], bool], None]], None],
) -> None:
    """Shows from now on what parties print, and says once whose output does not leave its machine.

    Args:
        parties: All of the session.
        places: The process of each party whose output may leave it.
        source: Is handed what takes (machine, process, lines, whether of stderr) from now on.
    """
    output = ShownOutput({process: party for party, process in places.items()})
    source(lambda machine, number, lines, is_error: output.show((machine, number), lines, is_error=is_error))
    silent = [party for party in parties if party not in places]
    if silent:
        _log.warning(
            "log_level: nothing is shown of what these parties print and log: %s. Strict egress, or printing = false "
            "in a party.toml, lets none of it leave",
            ", ".join(silent),
        )
