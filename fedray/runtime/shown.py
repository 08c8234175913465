# SPDX-License-Identifier: Apache-2.0
"""What parties print, as the driver shows it: each line with its party's name, and every line.

Knows which process is whose. Does not know how the lines get here, nor what may leave a party.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from tqdm import tqdm

from fedray.errors import FedRayError
from fedray.types import PartyName, Transport

_log = logging.getLogger("fedray")

_SETTLE_SECONDS = 3.0
"""How long lines are waited for that were printed; they take a few tenths of a second."""

Process: TypeAlias = tuple[str, int]
"""Address of a machine, and the number of a process there."""


class ShownOutput:
    """Prints lines as they come, from whatever thread.

    They come late, by a way of their own: a call's answer may be here before what was printed in it. So parties can be
    asked to print a mark, which is not shown, and what stands before it has come when the mark has.

    Args:
        parties: Process -> the party that it is.
        calls: How parties are asked to.
    """

    def __init__(self, parties: Mapping[Process, PartyName], calls: Transport) -> None:
        self._parties, self._calls = dict(parties), calls
        self._marks = threading.Condition()
        self._token, self._marked = "", list[PartyName]()

    def show(self, machine: str, process: int, lines: Sequence[str], is_error: bool) -> None:
        """Prints lines of one process; of one that is no party, nothing.

        Args:
            machine: The address of its machine; empty where that is not told.
            process: Its number.
            lines: Without their ends.
            is_error: Whether they were written to stderr, and go there.
        """
        party = self._parties.get((machine, process)) if machine else self._somewhere(process)
        if party is None:
            return
        shown = [f"{party}: {line}" for line in lines if line != self._token]
        if shown:
            # tqdm's, since a plain print would leave half a bar behind on the line above.
            tqdm.write("\n".join(shown), file=sys.stderr if is_error else sys.stdout)
        if len(shown) < len(lines):
            with self._marks:
                self._marked.append(party)
                self._marks.notify_all()

    def _somewhere(self, process: int) -> str | None:
        """Returns the party that has a process of that number, or the parties, on whatever machines; None for none."""
        return " or ".join(party for (_, number), party in self._parties.items() if number == process) or None

    def settle(self, *_: Any) -> None:
        """Waits until all has come that was printed before, for a few seconds at most."""
        self._token, self._marked = f"fedray-{secrets.token_hex(8)}", []
        with contextlib.suppress(FedRayError):  # of a party that has ended nothing more comes
            asked = [self._calls.call(party, "mark", "output", self._token) for party in self._parties.values()]
            self._calls.get(asked, _SETTLE_SECONDS)
            with self._marks:  # one of each stream
                self._marks.wait_for(lambda: len(self._marked) >= 2 * len(asked), _SETTLE_SECONDS)


def follow(
    parties: Sequence[PartyName],
    shown: Mapping[Process, PartyName],
    calls: Transport,
    source: Callable[[Callable[[str, int, list[str], bool], None]], None],
) -> Callable[[], None]:
    """Shows from now on what parties print, and says once whose output does not leave its machine.

    In a notebook each cell ends when what was printed in it has come.

    Args:
        parties: All of the session.
        shown: The processes of those whose output may leave it.
        calls: How parties are asked.
        source: Is handed what takes (machine, process, lines, whether of stderr) from now on.

    Returns:
        What lets cells end as before.
    """
    silent = [party for party in parties if party not in shown.values()]
    if silent:
        _log.warning(
            "log_level: nothing is shown of what these parties print and log: %s. Strict egress, or printing = false "
            "in a party.toml, lets none of it leave",
            ", ".join(silent),
        )
    output = ShownOutput(shown, calls)
    source(output.show)
    # Nobody imports it for this: where there is a notebook, it is there.
    found = sys.modules.get("IPython")
    shell = None if found is None else found.get_ipython()
    if shell is None or not shown:
        return lambda: None
    shell.events.register("post_run_cell", output.settle)

    def unfollow() -> None:
        with contextlib.suppress(ValueError):  # it was called before
            shell.events.unregister("post_run_cell", output.settle)

    return unfollow
