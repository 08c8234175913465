# SPDX-License-Identifier: Apache-2.0
"""The progress of `fit`, `evaluate` and `predict` as the user sees it. Knows numbers and names only."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

from tqdm import tqdm

from fedray.errors import PlanError

Verbose: TypeAlias = Literal["auto", 0, 1, 2]


def check_verbose(verbose: Verbose) -> int:
    """Returns 0 (silent), 1 (a bar) or 2 (one line per epoch); `"auto"` is a bar.

    Raises:
        PlanError: Another value.
    """
    if verbose == "auto":
        return 1
    if verbose not in (0, 1, 2):
        raise PlanError(f"verbose: expected 'auto', 0, 1 or 2, found {verbose!r}")
    return int(verbose)


class EpochBar:
    """One epoch's bar over its rounds, then a line of its figures.

    The figures have a line of their own because a narrow terminal would cut them off behind the bar.

    Args:
        verbose: 0, 1 or 2.
        title: What stands before the bar, e.g. `"epoch: 1/10"`.
        total: Rounds.
    """

    def __init__(self, verbose: int, title: str, total: int) -> None:
        self._verbose = verbose
        self._title = title
        self._total = total
        self._bar: Any = None

    def __enter__(self) -> Self:
        if self._verbose == 1:
            self._bar = tqdm(total=self._total, desc=self._title, unit="batch", file=sys.stdout, dynamic_ncols=True)
        return self

    def advance_to(self, done: int) -> None:
        """Draws `done` rounds of the total."""
        if self._bar is not None:
            self._bar.update(done - self._bar.n)

    def finish(self, logs: Mapping[str, float]) -> None:
        """Fills the bar and prints the line of figures."""
        if self._bar is not None:
            self._bar.update(self._total - self._bar.n)
            self._bar.close()
        if self._verbose:
            figures = " ".join(f"{name}:{value:.4f}" for name, value in logs.items())
            print(f"{self._title} - {figures}", flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
