# SPDX-License-Identifier: Apache-2.0
"""A clock that stands still until a party that sleeps is all that a round waits for: late parties take no time.

However slow the machine, nobody else can be late under it.
"""

import threading
from functools import partial
from pathlib import Path

import pytest

from fedray.party.rounds.barrier import Barrier, Stand
from fedray.party.rounds.round_exchanges import Stage
from fedray.party.rounds.waiting_room import WaitingRoom
from fedray.rounds import supervision


class Restless(threading.Condition):
    """A condition whose threads look at the clock again and again, as nobody tells them that it was turned."""

    def wait(self, timeout=None):
        return super().wait(0.01)


def turn_clock(monkeypatch: pytest.MonkeyPatch, party: str, gate: Path) -> None:
    """Gives waiting rooms that are made from now on this clock.

    Args:
        monkeypatch: Puts the real clock back.
        party: Who sleeps.
        gate: What it waits for; see `sleeping` in `inline/dropouts.py`, which says when it has begun.
    """
    build, now = WaitingRoom.__init__, [0.0]

    def only_the_sleeper(barrier: Barrier, exchange: object) -> bool:
        if not isinstance(exchange, Stage) or not gate.with_suffix(".asleep").exists() or gate.exists():
            return False
        return exchange.current.collector.missing() - barrier.attendance.gone.keys() == {party}

    def with_clock(self: WaitingRoom, barrier: Barrier) -> None:
        def clock() -> float:
            for place in barrier._places.values():
                if place.stand is Stand.GATHERING and only_the_sleeper(barrier, place.exchange):
                    now[0] = max(now[0], place.deadline)
            return now[0]

        build(self, barrier, clock)
        self._condition = partial(Restless, self._lock)

    monkeypatch.setattr(WaitingRoom, "__init__", with_clock)
    monkeypatch.setattr(supervision, "AWAY_SECONDS", 0.1)  # the driver's own patience with whoever sleeps
