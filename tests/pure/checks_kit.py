# SPDX-License-Identifier: Apache-2.0
"""Rounds of every scheme with protection in one process, whose sums are handed out by whoever tests."""

import numpy as np
from pure import masking_kit, recovery_kit, sharing_kit
from pure.masking_kit import context_of, manifest_of, plain_values

from fedray.protocol.recovery.rehearsal import Rehearsal

SCHEMES = ("masking", "recovery", "sharing")
SIZE = 700  # words in two rows
SERVER = "server"


class Rounds:
    """A session of four parties of one scheme; in sharing two of them compute."""

    def __init__(self, scheme):
        self.scheme = scheme
        self.manifest = manifest_of(SIZE, ["loss"], weighted=False)
        if scheme == "masking":
            self.kit = masking_kit.session(4)
            self.shields, self.config = self.kit.shields, self.kit.config
        elif scheme == "recovery":
            self.kit = Rehearsal(4, recovery_kit.propose_small)
            self.kit.prepare(0)
            self.shields, self.config = self.kit.shields, self.kit.config
        else:
            self.kit = sharing_kit.session(4, 2)
            self.kit.expect(self.manifest)
            self.shields, self.config = self.kit.shields, self.kit.config
        self.names = tuple(self.shields)

    def inputs(self, number):
        draw = np.random.default_rng(number)
        return {name: plain_values(draw.normal(size=SIZE), 1, [0.5]) for name in self.names}

    def run(self, number, silent=(), absent=()):
        """Runs a round up to its sum, which nobody has seen yet.

        Args:
            number: The round.
            silent: Who sends its words, and too late.
            absent: Who sends nothing.
        """
        context, inputs = context_of(number, self.manifest), self.inputs(number)
        inputs = {name: one for name, one in inputs.items() if name not in absent}
        members = [name for name in inputs if name not in silent]
        if self.scheme == "masking":
            collector = self.kit.collector(number, self.manifest)
            for name, one in inputs.items():
                collector.add(name, self.kit.send(name, context, one))
        elif self.scheme == "recovery":
            collector = self.kit.begin(context, {name: inputs[name] for name in members})
            for name in silent:
                self.shields[name].protect(context, inputs[name])
            while self.kit.answer(collector, members) is not None:
                pass
        else:
            for name, one in inputs.items():
                self.kit.send(name, context, one, () if name in silent else None)
            self.kit.agree(members)
            collector = self.kit.collector(number, self.manifest)
            for name, adder in self.kit.adders.items():
                collector.add(name, adder.publish())
        return collector.open()

    def verify(self, name, number, opened, **rest):
        self.shields[name].verify(number, opened, SERVER, **rest)
