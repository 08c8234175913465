# SPDX-License-Identifier: Apache-2.0
"""Cost of a sum with recovery against the number of parties, all in one process: CPU seconds and bytes per party.

    python tests/benchmarks/parties.py [--parties 4 10 32 100 1000] [--words 10000] [--ring 32] [--dropped 0.05]

Every party runs: real keys, real signatures, real shares; one in twenty drops out before its masked input. What is one
fact for all parties of the process (whether a signature is valid, the permutation of a round, the directory of all
keys) is computed once, and its cost charged to each party that would compute it on its own machine. Keys are made for
a batch of rounds and their cost is given per round. Bytes are counted at the party, sent and received, without the
model that comes down; for other lengths only the vector itself grows, which gives the last column.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fedray.protocol import handshake
from fedray.protocol.config import Config, Encoding
from fedray.protocol.crypto.keys import Roster, verify
from fedray.protocol.manifest import Manifest, Tensor
from fedray.protocol.policy import Policy
from fedray.protocol.recovery import (
    collector,
    key_batch,
    key_directory,
    key_relay,
    session,
    thresholds,
    unmasking,
)
from fedray.protocol.recovery.rehearsal import Rehearsal
from fedray.protocol.recovery.shield import RecoveryShield
from fedray.protocol.scheme import Contribution, RoundContext

PHASES: tuple[tuple[str, type, tuple[str, ...]], ...] = (
    ("session", handshake.Handshake, ("hello", "confirm", "start")),
    ("batch", RecoveryShield, ("prepare", "absorb")),
    ("mask", RecoveryShield, ("protect",)),
    ("answer", RecoveryShield, ("reply",)),
)
MILLION = 1_000_000
WIDTH = 12
BOUND = 8.0
"""What no value reaches: they are normally distributed, ten thousand of them."""
FEW = 200
"""Up to so many parties a whole batch of keys fits into the memory of one process."""


class Meter:
    """CPU seconds by phase, with what was computed once charged as often as it was asked for."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._known: dict[Any, tuple[Any, float]] = {}
        self._saved = 0.0

    def once(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function, computed once for the same arguments."""

        def remembered(*arguments: Any) -> Any:
            key = (function, *(tuple(a) if isinstance(a, list) else a for a in arguments))
            if key in self._known:
                result, cost = self._known[key]
                self._saved += cost
                return result
            start = time.process_time()
            result = function(*arguments)
            self._known[key] = result, time.process_time() - start
            return result

        return remembered

    def timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function, its time added to a phase."""

        def measured(*arguments: Any) -> Any:
            start, saved = time.process_time(), self._saved
            try:
                return function(*arguments)
            finally:
                self.seconds[phase] += time.process_time() - start + self._saved - saved

        return measured


def install(meter: Meter) -> None:
    """Puts the meter around the parties' methods and the server's, and under what is computed once."""
    checked = meter.once(verify)
    for module in (handshake, key_directory, key_batch, unmasking, key_relay, collector):
        module.verify = checked
    key_directory.Directory.check = staticmethod(meter.once(key_directory.Directory.check))
    session.ring_of = meter.once(thresholds.ring_of.__wrapped__)
    for phase, end, methods in PHASES:
        for method in methods:
            setattr(end, method, meter.timed(phase, getattr(end, method)))
    for method in ("add", "advance", "open"):
        timed = meter.timed("server", getattr(collector.RecoveryCollector, method))
        setattr(collector.RecoveryCollector, method, timed)


def propose(roster: Roster, encoding: Encoding, rounds: int) -> Config:
    """Returns the default terms for a roster of this size."""
    return thresholds.propose(roster, ["server"], encoding, batch=rounds)


def measure(meter: Meter, parties: int, words: int, ring: int, dropped: float) -> dict[str, Any]:
    """Runs a session, the set-up of a batch, and one round; returns one line of the table."""
    meter.seconds.clear()
    encoding, rounds = Encoding(ring), 64 if parties <= FEW else 4
    run = Rehearsal(parties, partial(propose, encoding=encoding, rounds=rounds), Policy(random_graph="always"))
    session = traffic(run) / parties
    run.prepare(0)
    a_batch = traffic(run) / parties - session
    manifest = Manifest((Tensor("values", (words - 2,), "float32", BOUND),))
    values = np.random.default_rng(0).normal(size=words - 2).astype(np.float32)
    gone = min(int(dropped * parties), run.config.dropouts)
    inputs = {name: Contribution(values, 1, np.empty(0)) for name in run.names[gone:]}
    opened = run.sum(RoundContext(0, bytes(32), b"", manifest), inputs)
    # Every party rounds to a step of its words: the more there are, the fewer bits a word has for one of them.
    if not np.allclose(opened.values, values, rtol=0, atol=BOUND / 2 ** encoding.top(parties)):
        raise SystemExit(f"{parties} parties: the sum is wrong")
    vector = words * ring // 8
    a_round = traffic(run) / len(inputs) - (session + a_batch) * parties / len(inputs) - vector
    keys = a_batch / rounds
    graph = f"k={run.config.degree} t={run.config.t_share}"
    return {
        "n": parties,
        "graph": run.config.graph,
        "": graph,
        "R": rounds,
        "gone": gone,
        "session": 1000 * meter.seconds["session"] / parties,
        "keys": 1000 * meter.seconds["batch"] / parties / rounds,
        "mask": 1000 * meter.seconds["mask"] / len(inputs),
        "answer": 1000 * meter.seconds["answer"] / len(inputs),
        "server s": meter.seconds["server"],
        "B session": round(session),
        "B keys": round(keys),
        "B round": round(a_round),
        "B/param": ring / 8 + (keys + a_round) / MILLION,
    }


def shown(figure: float | str) -> str:
    """Returns a figure as the table has it."""
    return f"{figure:.4f}" if isinstance(figure, float) else f"{figure:,}" if isinstance(figure, int) else figure


def traffic(run: Rehearsal) -> int:
    """Bytes that all parties sent and received so far."""
    return sum(run.sent.values()) + sum(run.received.values())


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Cost of a sum with recovery against the number of parties.")
    parser.add_argument("--parties", type=int, nargs="+", default=[4, 10, 32, 100, 1000])
    parser.add_argument("--words", type=int, default=10_000, help="words of the vector")
    parser.add_argument("--ring", type=int, default=32, help="bits of a word")
    parser.add_argument("--dropped", type=float, default=0.05, help="share of parties that drop out")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    meter = Meter()
    install(meter)
    print(f"vector of {chosen.words} words of {chosen.ring} bits; ms of CPU and bytes are those of one party")
    lines = []
    for parties in chosen.parties:
        lines.append(measure(meter, parties, chosen.words, chosen.ring, chosen.dropped))
        if len(lines) == 1:
            print("".join(f"{name:>{WIDTH}}" for name in lines[0]))
        print("".join(f"{shown(figure):>{WIDTH}}" for figure in lines[-1].values()), flush=True)
    print(
        "R: rounds of a batch of keys; keys: those of one round; mask, answer: R1, R2 and R3; B round: beside the "
        "vector; B/param: all bytes of a round of 10^6 parameters, keys included"
    )
    if chosen.json:
        chosen.json.write_text(json.dumps({"parties": lines}, indent=1))


if __name__ == "__main__":
    main()
