# SPDX-License-Identifier: Apache-2.0
"""Runs that are killed, at the driver or at a party, at any step of their loop, and go on in a new session.

A step is a moment in which the driver waits for answers, and between two of them parties train and wait. What is kept
is written beside that, so each write is a step of its own, before which its writer may be killed. Whoever is killed is
gone for good; what its threads still do reaches nobody, but for its disk, as with a process.
"""

import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from inline.federated import regression, world

import fedray as sf
from fedray.errors import FedRayError, PartyLost
from fedray.party.kept import kept_file
from fedray.runtime.session import Session, running
from fedray.security.aggregation import SecureAggregator, SPUAggregator
from fedray.utils.testing import cluster_def

ROWS = (30, 24, 27)


class Killed(BaseException):
    """The driver's process is gone."""


@dataclass
class Steps:
    """Counts the steps of a run, and kills somebody at some of them.

    Attributes:
        kills: Number of a step, from 1 -> `"driver"`, `"all"`, or a party.
        torn: The driver or a party -> number of its write, from 1, that never happens, nor any after it.
        count: How many steps there were.
        writes: Who -> how many writes there were.
    """

    kills: dict[int, str] = field(default_factory=dict)
    torn: dict[str, int] = field(default_factory=dict)
    count: int = 0
    writes: Counter[str] = field(default_factory=Counter)
    _thread: int = field(default_factory=threading.get_ident)

    def __call__(self, session):
        if threading.get_ident() != self._thread:
            return
        self.count += 1
        whom = self.kills.get(self.count)
        for party in session.parties if whom == "all" else [whom]:
            if party not in ("driver", None):
                session.transport.lose(party)
        if whom in ("driver", "all"):
            raise Killed

    def write(self, path):
        """Counts a write, before it happens; from whatever thread."""
        names = path.parts
        whose = names[names.index("parties") + 1] if "parties" in names else "driver"
        self.writes[whose] += 1
        if self.writes[whose] >= self.torn.get(whose, 1 << 30):
            if whose != "driver":
                running().transport.lose(whose)
            raise Killed


def counted(monkeypatch, steps):
    """Lets every wait of the driver's be a step, and every file that is written."""
    get, replace = Session.get, kept_file.replace_file

    def watched(self, *args, **more):
        steps(self)
        return get(self, *args, **more)

    def written(path, *rest):
        steps.write(path)
        replace(path, *rest)

    monkeypatch.setattr(Session, "get", watched)
    monkeypatch.setattr(kept_file, "replace_file", written)


def fit(start, checkpoint, on_dropout="auto", backend="numpy", builder=None, rows=ROWS, callbacks=None, **arguments):
    """Returns history and weights of one `fit` in a session of its own, and what its program builds."""
    fed = world(start, rows=rows, backend=backend, **arguments.pop("session", {}))
    if on_dropout == "shares":
        aggregator = SPUAggregator(sf.SPU(cluster_def(["alice", "bob"])))
    else:
        aggregator = SecureAggregator(fed.server, fed.devices, on_dropout=on_dropout)
    arguments.pop("act", lambda _: None)(fed)
    own = {name: arguments.pop(name) for name in ("strategy", "strategy_parameters", "local") if name in arguments}
    builder = builder or (regression(momentum=0.9) if backend == "numpy" else None)
    model = fed.model(builder, aggregator=aggregator, **own)
    arguments = {"batch_size": 8, "epochs": 2, "verbose": 0, "validation_data": (fed.x, fed.y)} | arguments
    history = model.fit(fed.x, fed.y, checkpoint=checkpoint, callbacks=callbacks and callbacks(), **arguments)
    return history, b"".join(array.tobytes() for array in model.get_weights())


def killed(monkeypatch, start, checkpoint, kills, torn=None, **arguments):
    """Runs until somebody is killed; returns None, or its history and weights where it came to its end."""
    with monkeypatch.context() as patch:
        steps = Steps(kills, torn or {})
        counted(patch, steps)
        try:
            return fit(start, checkpoint, **arguments)
        except (Killed, PartyLost):
            return None
        except FedRayError as error:  # told by the others, of the party that is gone
            if "has ended" not in str(error):
                raise
            return None
        finally:
            patch.undo()
            sf.shutdown()


def same(found, expected, but=""):
    """Checks that a run that was killed came to the very result of one that was not.

    Args:
        found: History and weights.
        expected: The same.
        but: A party that ended when all of its rounds were over, so that nothing but its own metrics is missing.
    """
    (history, weights), (other, others) = found, expected
    assert weights == others
    for name in ("params", "epoch", "global_history", "dropouts", "resets", "faults"):
        assert getattr(history, name) == getattr(other, name), name
    for party, metrics in other.local_history.items():
        assert party == but or history.local_history[party] == metrics, party
    told = ("went back", "checkpoint:")
    assert [one for one in history.notices if not one.startswith(told)] == other.notices


def on_disk(folder: Path) -> list[str]:
    return sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file())
