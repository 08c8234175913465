# SPDX-License-Identifier: Apache-2.0
"""The numbers that strategies are made with, checked in one place so that every refusal reads alike."""

from __future__ import annotations

import math

from fedray.errors import PlanError


def number(
    strategy: str,
    name: str,
    value: object,
    *,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """Returns a setting as a float.

    Args:
        strategy: Whose setting it is.
        name: The setting.
        value: What was given.
        least: It may be this or more.
        above: It must be more than this.
        below: It must be less than this.

    Raises:
        PlanError: It is not a finite number, or is out of range.
    """
    wanted = [f"of {least:g} or more"] if least is not None else []
    wanted += [f"above {above:g}"] if above is not None else []
    wanted += [f"below {below:g}"] if below is not None else []
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        fits = False
    else:
        fits = (least is None or value >= least) and (above is None or value > above)
        fits = fits and (below is None or value < below)
    if not fits:
        raise PlanError(f"{strategy}: expected {name} to be a finite number {' and '.join(wanted)}, found {value!r}")
    return float(value)  # type: ignore[arg-type]  # checked above
