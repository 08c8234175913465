# SPDX-License-Identifier: Apache-2.0
"""The progress of `fit` and `evaluate` as the user sees it. Knows numbers and names only."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import numpy as np
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
    """One epoch's bar over its steps, then a line of its figures.

    The figures have a line of their own because a narrow terminal would cut them off behind the bar.

    Args:
        verbose: 0, 1 or 2.
        title: What stands before the bar, e.g. `"epoch: 1/10"`.
        total: Steps.
    """

    def __init__(self, verbose: int, title: str, total: int) -> None:
        self._verbose = verbose
        self._title = title
        self._total = total
        self._bar: Any = None

    def __enter__(self) -> Self:
        if self._verbose == 1:
            # On stdout, as Keras does, so that bar and figures stay in order.
            self._bar = tqdm(total=self._total, desc=self._title, unit="batch", file=sys.stdout, dynamic_ncols=True)
        return self

    def advance_to(self, done: int) -> None:
        """Draws `done` steps of the total; nothing where they are drawn already, so that no file fills up with them."""
        if self._bar is not None and done != self._bar.n:
            # tqdm counts steps that were added; we know how many are done.
            self._bar.update(done - self._bar.n)

    def running(self, logs: Mapping[str, Any]) -> None:
        """Shows the loss so far behind the bar, from when it is drawn next."""
        if self._bar is not None and "loss" in logs:
            self._bar.set_postfix_str(_figure(("loss", logs["loss"])), refresh=False)

    def note(self, text: str) -> None:
        """Prints a line above the bar."""
        if self._verbose:
            # A plain print would leave half a bar behind on the line above.
            tqdm.write(text, file=sys.stdout)

    def close(self, *, complete: bool) -> None:
        """Ends the bar's line, so that others may print; `complete` fills the bar, also where steps had no rows."""
        if self._bar is not None:
            if complete:
                self._bar.set_postfix_str("", refresh=False)  # the line of figures has the loss over all rows
                self.advance_to(self._total)
            self._bar.close()
            self._bar = None

    def figures(self, logs: Mapping[str, Any]) -> None:
        """Prints the line of figures."""
        if self._verbose:
            print(" - ".join([self._title, *filter(None, [" ".join(map(_figure, logs.items()))])]), flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(complete=False)


def _figure(item: tuple[str, Any]) -> str:
    """Returns `name:value` as Keras prints it: four decimals, and small numbers with an exponent."""
    name, value = item[0], float(np.mean(item[1]))
    return f"{name}:{value:.4f}" if value == 0 or not abs(value) <= 1e-3 else f"{name}:{value:.4e}"
