# SPDX-License-Identifier: Apache-2.0
"""What surviving dropouts (recovery) costs beyond not surviving them (masking), for the tutorial model.

    python tests/benchmarks/online.py [--parties 4] [--parameters 34826] [--rounds 64] [--json FILE]

CPU milliseconds of one party and one round, protocol only, all parties in one process, medians over the rounds. The
rounds of both take turns. What recovery prepares ahead, on a thread of its own while training goes on, is counted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from epochs import PARAMETERS, machine
from masking import Session

from fedray.protocol.config import Config, Encoding
from fedray.protocol.crypto.keys import Roster
from fedray.protocol.fixed_point import decode
from fedray.protocol.manifest import Manifest, Tensor
from fedray.protocol.masking.collector import ViewCollector
from fedray.protocol.opened import OpenedSum
from fedray.protocol.recovery import thresholds
from fedray.protocol.recovery.rehearsal import Rehearsal
from fedray.protocol.scheme import Contribution, Opened, RoundContext, View


class Comparison:
    """A session of each part among as many parties, with the same inputs.

    Attributes:
        times: CPU ms of one party and round by what was done, one entry a round.
        exchanges: Exchanges of one round by part.
    """

    def __init__(self, parties: int, parameters: int, rounds: int) -> None:
        self._parties, self._rounds = parties, rounds
        self.times: dict[str, list[float]] = defaultdict(list)
        self.exchanges = {"A": 1, "B": 1}
        self._manifest = Manifest((Tensor("weights", (parameters,), "float32"),), weighted=False)
        values = np.random.default_rng(0).normal(size=parameters).astype(np.float32)
        self._input = Contribution(values, 1, np.empty(0))
        self._masking = Session(parties, Encoding())
        self._recovery = Rehearsal(parties, partial(propose, batch=rounds))

    def run(self) -> None:
        """Runs all rounds of both."""
        with self._timed("B: keys, ahead", self._rounds):
            self._recovery.prepare(0)
        for number in range(self._rounds):
            model = hashlib.sha256(str(number).encode()).digest()
            context = RoundContext(number, model, b"", self._manifest)
            if not np.array_equal(self._abandoning(context).values, self._recovering(context).values):
                raise SystemExit("parts A and B open different sums")

    def _abandoning(self, context: RoundContext) -> Opened:
        shields, names = self._masking.shields, self._masking.roster.names
        with self._timed("A: mask"):
            messages = [shield.protect(context, self._input)["server"] for shield in shields]
        collector = ViewCollector(self._masking.config, shields[0].rounds.view, context.number, self._manifest)
        for name, message in zip(names, messages, strict=True):
            collector.add(name, message)
        return self._read(collector.open())

    def _recovering(self, context: RoundContext) -> Opened:
        shields, names = self._recovery.shields, self._recovery.names
        collector = self._recovery.server.collector(View(0, names), context.number, self._manifest)
        with self._timed("B: mask"):
            messages = {name: shield.protect(context, self._input)["server"] for name, shield in shields.items()}
        for name, message in messages.items():
            collector.add(name, message)
        self.exchanges["B"] = 1
        while (broadcast := collector.advance()) is not None:
            self.exchanges["B"] += 1
            with self._timed(f"B: exchange {self.exchanges['B']}"):
                replies = {name: shield.reply(broadcast) for name, shield in shields.items()}
            for name, reply in replies.items():
                collector.add(name, reply)
        return self._read(collector.open())

    def _read(self, opened: OpenedSum) -> Opened:
        return decode(self._masking.config.encoding, self._parties, self._manifest, opened)

    @contextmanager
    def _timed(self, name: str, rounds: int = 1) -> Iterator[None]:
        start = time.process_time()
        yield
        self.times[name].append(1e3 * (time.process_time() - start) / self._parties / rounds)


def propose(roster: Roster, batch: int) -> Config:
    """Returns the default settings."""
    return thresholds.propose(roster, ["server"], Encoding(), batch=batch)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parties", type=int, default=4)
    parser.add_argument("--parameters", type=int, default=PARAMETERS)
    parser.add_argument("--rounds", type=int, default=64, help="rounds of a batch of keys")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    comparison = Comparison(options.parties, options.parameters, options.rounds)
    comparison.run()
    found = {name: statistics.median(samples) for name, samples in sorted(comparison.times.items())}
    found["B beyond A"] = sum(found.values()) - 2 * found["A: mask"]
    print(
        f"| {options.parties} parties, {options.parameters:,} parameters | CPU ms of one party and round |\n|---|---|"
    )
    for name, figure in found.items():
        print(f"| {name} | {figure:.2f} |")
    print(f"\nexchanges of a round: {comparison.exchanges}")
    if options.json:
        content = {"machine": machine(), "online": found | {"exchanges": comparison.exchanges}}
        options.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
