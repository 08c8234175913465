# SPDX-License-Identifier: Apache-2.0
"""Which checkpoint a run goes on from, which ones are kept, and what a `fit` does with what it finds. Pure.

A checkpoint is one where the driver and every party have it whole. Knows numbers and names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from fedray.errors import PlanError
from fedray.ml.nn.checkpoints.checkpoint import Resume
from fedray.types import PartyName


def common(driver: Collection[int], held: Mapping[PartyName, Collection[int]]) -> list[int]:
    """Returns the checkpoints that all have, in order.

    Args:
        driver: Numbers that the driver has.
        held: Party -> numbers that it has.
    """
    return sorted(set(driver).intersection(*held.values()))


def staying(
    driver: Collection[int], held: Mapping[PartyName, Collection[int]], there: Collection[PartyName], keep: int
) -> tuple[int, ...]:
    """Returns the numbers that nobody may remove; what is newer than all of them stays as well.

    Those are the last `keep` that all have, and the last `keep` of those who take part still: a party that is lost may
    be back before the run goes on, or never.

    Args:
        driver: Numbers that the driver has.
        held: Party -> numbers that it has.
        there: Who takes part.
        keep: How many are kept.
    """
    here = {party: numbers for party, numbers in held.items() if party in there}
    return tuple(sorted({*common(driver, held)[-keep:], *common(driver, here)[-keep:]}))


def say_lacking(driver: Collection[int], held: Mapping[PartyName, Collection[int]]) -> str:
    """Returns who lacks what, in words, where there is no checkpoint that all have.

    Args:
        driver: Numbers that the driver has.
        held: Party -> numbers that it has.
    """
    said = [f"the driver has {_listed(driver)}"]
    said += [f"{party!r} has {_listed(numbers)}" for party, numbers in held.items()]
    return "; ".join(said)


def say_behind(chosen: int, driver: Collection[int], held: Mapping[PartyName, Collection[int]]) -> str:
    """Returns why a run goes on from an older checkpoint than there is, in words; else nothing.

    Args:
        chosen: The one that it goes on from.
        driver: Numbers that the driver has.
        held: Party -> numbers that it has.
    """
    newest = max([*driver, *(number for numbers in held.values() for number in numbers)], default=chosen)
    if newest == chosen:
        return ""
    lacking = [repr(party) for party, numbers in held.items() if newest not in numbers]
    lacking = ["the driver", *lacking] if newest not in driver else lacking
    return f"went back to checkpoint {chosen}: {', '.join(lacking)} lack{'s' * (len(lacking) == 1)} number {newest}"


def say_dealt(moved: Sequence[PartyName]) -> str:
    """Returns that rows are dealt anew, in words.

    Args:
        moved: Who knows that those of before would come again over others.
    """
    return (
        "checkpoint: rounds after it were held without a party, or may have been, as far as "
        f"{', '.join(map(repr, moved))} can tell. The same rows summed over others would show one party's "
        "part: rows are dealt anew from here on, and the run is not bit by bit what it would have been"
    )


def say_moved(run: str, moved: Sequence[PartyName], shuffle: bool) -> str:
    """Returns why a run cannot be gone on with whose rows would come again over other parties, in words.

    Args:
        run: Which one.
        moved: Who knows that they would.
        shuffle: Whether rows are dealt in a random order.
    """
    why = "every round has most of an epoch's rows" if shuffle else "rows keep their order (shuffle=False)"
    return (
        f"checkpoint: {run} cannot be gone on with: rounds after its last checkpoint were held over other parties, or "
        f"may have been, as far as {', '.join(map(repr, moved))} can tell, and the same rows would come again, since "
        f"{why}. The difference of the two sums would show one party's part. Go on with the parties of then, or begin "
        "a new run from other weights (resume=False, and another random_seed)"
    )


@dataclass(frozen=True, slots=True)
class Found:
    """The newest run in a folder.

    Attributes:
        name: What it is called there.
        finished: Whether it came to its end.
        differences: How its experiment differs from the one that is asked for, in words.
        versions: How the versions differ, in words.
    """

    name: str
    finished: bool
    differences: Sequence[str] = ()
    versions: Sequence[str] = ()


def decide(path: str, found: Found | None, resume: Resume) -> bool:
    """Returns whether a `fit` goes on with the run that was found; otherwise it begins a new one.

    Args:
        path: The folder, for errors.
        found: The newest run in it, or None.
        resume: As `fit` was given it.

    Raises:
        PlanError: There is none and there must be one, or it is of another experiment.
    """
    if resume is False:
        return False
    if found is None or found.finished:
        if resume == "must":
            state = "no run" if found is None else f"run {found.name}, which is finished"
            raise PlanError(
                f"resume='must': expected an unfinished run in {path}, found {state}; name its folder, or leave "
                "resume out to begin a new run"
            )
        return False
    if found.differences:
        drawn = " Rows that are drawn, as by train_test_split, are the same ones under sf.init(..., seed=...)."
        raise PlanError(
            f"checkpoint: run {found.name} in {path} is unfinished and of another experiment: "
            f"{'; '.join(found.differences)}. Call fit as then to go on, pass resume=False to begin a new run, or name "
            f"another folder.{drawn if any(' rows' in one for one in found.differences) else ''}"
        )
    if found.versions and resume == "must":
        raise PlanError(
            f"resume='must': run {found.name} in {path} was begun with other versions, with which its result need not "
            f"be the same bits: {'; '.join(found.versions)}. Install those, or leave 'must' out to go on with a warning"
        )
    return True


def _listed(numbers: Collection[int]) -> str:
    if not numbers:
        return "none"
    return f"number{'s' * (len(numbers) > 1)} {', '.join(map(str, sorted(numbers)))}"
