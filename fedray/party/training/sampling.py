# SPDX-License-Identifier: Apache-2.0
"""Which rows a party trains on, and when: (seed, party, purpose, epoch) -> order of rows. Pure.

An epoch is a fixed number of steps, the same for every party. In each step a party holds a share of its rows:

* method `"batch"` deals its rows evenly over the steps of the epoch, each row exactly once; a share larger than the
  batch size is trained on in several local batches;
* method `"poisson"` draws each row in each step with probability batch_size / rows, independently.

A round is a run of consecutive steps (`aggregate_freq` of them). The number of rows of a share depends on the seed and
the sizes alone, so the planner computes it without seeing data. Randomness here is statistical, not secret.

Knows no framework and no strategy; does not know what a row contains.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedray.backends.backend import Batch
from fedray.types import PartyName


def stream(seed: int, party: PartyName, purpose: str, epoch: int) -> np.random.Generator:
    """Returns the random stream of one purpose, independent of all others.

    Args:
        seed: The run's seed.
        party: Whose stream.
        purpose: What it is for, in words.
        epoch: Epoch, counted from 0.
    """
    fields = (b"fedray batches 1", str(seed).encode(), party.encode(), purpose.encode(), str(epoch).encode())
    digest = hashlib.sha256(b"".join(len(field).to_bytes(4, "big") + field for field in fields)).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "big")))


@dataclass(frozen=True, slots=True)
class Sampling:
    """How rows are dealt over the steps of an epoch; one record for all parties.

    Attributes:
        seed: The run's seed.
        steps: Steps in an epoch.
        batch_size: Largest number of rows in one local batch; with `"poisson"` the expected number.
        method: `"batch"` or `"poisson"`.
        shuffle: Whether `"batch"` deals the rows in a new random order each epoch.
    """

    seed: int
    steps: int
    batch_size: int
    method: Literal["batch", "poisson"] = "batch"
    shuffle: bool = True

    def redealt(self, steps: int) -> bool:
        """Returns whether under another seed a round has other rows.

        Not in file order, nor where it has most of an epoch's rows: whatever the order, most of them come again.

        Args:
            steps: Of the round.
        """
        return self.method == "poisson" or (self.shuffle and 2 * steps <= self.steps)

    def share_sizes(self, party: PartyName, rows: int, epoch: int) -> NDArray[np.int64]:
        """Returns how many of its rows a party holds in each step of an epoch, int64[steps].

        Args:
            party: Which one.
            rows: How many it has.
            epoch: Epoch, counted from 0.
        """
        if self.method == "poisson":
            rate = min(1.0, self.batch_size / rows) if rows else 0.0
            draws = stream(self.seed, party, "poisson sizes", epoch).binomial(rows, rate, self.steps)
            return np.asarray(draws, np.int64)
        return np.diff(_even_bounds(rows, self.steps))

    def shares(self, party: PartyName, rows: int, epoch: int) -> list[NDArray[np.int64]]:
        """Returns the row numbers a party holds in each step of an epoch, int64 arrays; see `share_sizes`."""
        sizes = self.share_sizes(party, rows, epoch)
        if self.method == "poisson":
            # A binomial size, then that many rows without replacement: the same law as one coin per row.
            draw = stream(self.seed, party, "poisson rows", epoch)
            return [np.sort(draw.choice(rows, int(size), replace=False, shuffle=False)) for size in sizes]
        order = np.arange(rows, dtype=np.int64)
        if self.shuffle:
            order = stream(self.seed, party, "shuffle", epoch).permutation(order)
        return np.split(order, np.cumsum(sizes)[:-1])

    def deal(self, party: PartyName, rows: int, epoch: int) -> list[list[Batch]]:
        """Returns a party's batches in each step of an epoch, none where it has no rows; see `share_sizes`."""
        return [self.batches(share) for share in self.shares(party, rows, epoch)]

    def batches(self, share: NDArray[np.int64]) -> list[Batch]:
        """Cuts one share into local batches of nearly equal size; an empty share has none."""
        if self.method == "poisson":
            return [Batch(share)] if len(share) else []
        return cut(share, self.batch_size)


def cut(rows: NDArray[np.int64], batch_size: int) -> list[Batch]:
    """Cuts rows into the fewest batches of at most `batch_size`, as even as can be."""
    pieces = -(-len(rows) // batch_size)
    return [Batch(piece) for piece in np.split(rows, _even_bounds(len(rows), pieces)[1:-1])] if pieces else []


def _even_bounds(rows: int, parts: int) -> NDArray[np.int64]:
    return np.arange(parts + 1, dtype=np.int64) * rows // parts
