# SPDX-License-Identifier: Apache-2.0
"""Parties that end, or fall asleep, at a chosen step of a round.

What happens is a function that a test calls inside a party, where it replaces methods of that process's classes:
nothing in fedray is made for tests. On Ray the process ends; inline, where all parties share one, the transport takes
the party for lost. The functions are nested so that they travel with their code.
"""

from collections.abc import Callable

import fedray as sf
from fedray.party.rounds.contributor import Contributor
from fedray.party.training.trainer import Trainer
from fedray.protocol.masking.collector import ViewCollector
from fedray.protocol.recovery.collector import RecoveryCollector

PATCHED = [
    (Contributor, "_answered"),
    (Contributor, "_dispatch"),
    (Trainer, "_update"),
    (ViewCollector, "add"),
    (RecoveryCollector, "add"),
]
"""What `happening` replaces; inline, the test has to put it back."""

ABANDONED = {
    "before it masks": False,
    "before its input leaves": False,
    "after its input came": True,
}
"""Step -> whether the round's sum holds the input of a party that ends there, where a round is one exchange."""

RECOVERED = ABANDONED | {
    "before it signs": True,
    "before it unmasks": True,
}
"""The same where rounds survive dropouts."""

KEYS = ("before its keys", "amid the keys")
"""Steps of the set-up of a batch of rounds."""

AT_THE_SERVER = "after its input came"
"""The step that the server sees, and not the party."""


def happening(party: str, step: str, number: int, act: Callable[[], None]) -> Callable[[], None]:
    """Returns a function that lets `act` happen when a party comes to a step of round `number`.

    It is to be called at the party, or for `AT_THE_SERVER` at the server. Steps are those above, and `"before it
    trains"`, where `number` counts the rounds in which the party trained.
    """

    def install() -> None:
        from fedray.party.records import KeyMessage, RoundMessage
        from fedray.party.rounds.contributor import Contributor
        from fedray.party.training.trainer import Trainer
        from fedray.protocol.masking.collector import ViewCollector
        from fedray.protocol.recovery.collector import RecoveryCollector

        places = {
            (RoundMessage, 0): "before its input leaves",
            (RoundMessage, 1): "before it signs",
            (RoundMessage, 2): "before it unmasks",
            (KeyMessage, 0): "before its keys",
            (KeyMessage, 1): "amid the keys",
        }
        counts = {RoundMessage: 0, KeyMessage: 0, "trained": 0, "came": 0}
        answered, dispatch, update = Contributor._answered, Contributor._dispatch, Trainer._update

        def watched_answered(self, shield, call, context, *rest):
            if (self._context.name, context.number, step) == (party, number, "before it masks"):
                act()
            return answered(self, shield, call, context, *rest)

        def watched_dispatch(self, post):
            what = type(post.message)
            of_round = what is RoundMessage and post.message.number == number
            if self._context.name == party and (what is KeyMessage or of_round):
                counts[what] += 1
                if places.get((what, counts[what] - 1)) == step:
                    act()
            return dispatch(self, post)

        def watched_update(self, *arguments):
            if (self._context.name, step) == (party, "before it trains"):
                counts["trained"] += 1
                if counts["trained"] - 1 == number:
                    act()
            return update(self, *arguments)

        def watched(add):
            def watched_add(self, sender, message):
                add(self, sender, message)
                at = self._public.number if isinstance(self, RecoveryCollector) else self._number
                if (sender, at) == (party, number):
                    counts["came"] += 1
                    if counts["came"] == 1:
                        act()

            return watched_add

        if step == "after its input came":
            ViewCollector.add, RecoveryCollector.add = watched(ViewCollector.add), watched(RecoveryCollector.add)
        else:
            Contributor._answered, Contributor._dispatch = watched_answered, watched_dispatch
            Trainer._update = watched_update

    return install


def ending(party: str, process: int = 0) -> Callable[[], None]:
    """Returns a function that ends a party: the process of that number, or the one that calls it."""

    def end() -> None:
        import os
        import signal

        from fedray.runtime.session import running

        session = running()
        if session is not None:
            session.transport.lose(party)
        elif process:
            os.kill(process, signal.SIGKILL)
        else:
            os._exit(1)
        if not process:
            raise SystemExit  # inline, the thread stops here as the process would

    return end


def sleeping(gate: str) -> Callable[[], None]:
    """Returns a function that blocks until a file is there; another, with `.asleep` behind, says that it does."""

    def sleep() -> None:
        import os
        import time

        with open(f"{gate}.asleep", "w"):
            pass
        for _ in range(6000):
            if os.path.exists(gate):
                return
            time.sleep(0.01)
        raise RuntimeError("the gate never opened")

    return sleep


def at(device: sf.PYU, function: Callable[[], None]) -> None:
    """Calls a function inside a party."""
    sf.wait(device(function)())


def lets_end(device: sf.PYU, server: sf.PYU, step: str, number: int = 0) -> None:
    """Lets a party's process end when it comes to a step of round `number`."""
    import os

    if step == AT_THE_SERVER:
        process = sf.reveal(device(os.getpid)())
        at(server, happening(device.name, step, number, ending(device.name, process)))
    else:
        at(device, happening(device.name, step, number, ending(device.name)))


def amounts(devices: list[sf.PYU]) -> list[sf.PYUObject]:
    """Returns a value at each party, 1, 2, 4, ... in order, so that a sum tells whose values are in it."""
    return [device(lambda k: {"n": 2**k, "x": [2.0**k]})(k) for k, device in enumerate(devices)]


def total(devices: list[sf.PYU], but: sf.PYU | None = None) -> dict:
    """Returns the sum of the amounts of all parties but one."""
    found = sum(2**k for k, device in enumerate(devices) if device != but)
    return {"n": found, "x": [float(found)]}
