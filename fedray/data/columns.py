# SPDX-License-Identifier: Apache-2.0
"""Names of columns: whether the parties' fit together, in which order, and what becomes of them in an operation.

Sees names, shapes and dtypes only. The service that tells the driver of them runs inside a party; names of columns
leave it with shape and dtype, as egress kind `shape`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeAlias

from numpy.typing import NDArray

from fedray.data.rows import Rest
from fedray.errors import DataError, PlanError
from fedray.party.context import PartyContext, Reply
from fedray.party.door.egress import Kind
from fedray.types import PartyName

Names: TypeAlias = tuple[str, ...]

SHOWN = 5
"""How many names of a kind an error lists."""


class Heading:
    """A service that tells shape, dtype and column names of one of its party's arrays.

    Args:
        context: The party it runs in.
    """

    def __init__(self, context: PartyContext) -> None:
        del context  # what it tells is in the arguments

    def tell(self, array: NDArray[Any], names: Names | None) -> Reply:
        """Returns (shape, name of the dtype, names of the columns or None)."""
        return Reply(Kind.SHAPE, (array.shape, str(array.dtype), names))


def common_order(found: Mapping[PartyName, Names]) -> dict[PartyName, list[int]]:
    """Returns, for each party whose columns are in another order than the first one's, where it has the first's.

    Args:
        found: Names of each party's columns, the first party's first.

    Raises:
        DataError: The parties' names differ.
    """
    first, model = next(iter(found.items()))
    other = {party: names for party, names in found.items() if names != model}
    differences = [_difference(party, names, first, model) for party, names in other.items()]
    if any(differences):
        raise DataError(
            f"{'; '.join(filter(None, differences))}. Rename them, choose by name with columns=[...], or by position "
            "with columns=[0, 1, ...]"
        )
    return {party: [names.index(name) for name in model] for party, names in other.items()}


def _difference(party: PartyName, names: Names, first: PartyName, model: Names) -> str:
    """Returns how the columns of a party differ from the first one's; empty where only their order does."""
    missing, extra = (
        list((Counter(model) - Counter(names)).elements()),
        list((Counter(names) - Counter(model)).elements()),
    )
    where = f"party {party!r}: expected the columns of {first!r}"
    if missing or extra:
        parts = [f"{word} {listed(some)}" for word, some in (("missing", missing), ("extra", extra)) if some]
        return f"{where}, found {', '.join(parts)}{_near(missing, extra)}"
    twice = [name for name, count in Counter(names).items() if count > 1]
    # Which of them is which is in their order, and that differs.
    return f"{where} in the same order, since {listed(twice)} is there more than once" if twice else ""


def _near(missing: Sequence[str], extra: Sequence[str]) -> str:
    """Returns which missing names may be meant by which extra ones: another spelling of case, blanks or letters."""
    plain = {"".join(filter(str.isalnum, name.casefold())): name for name in extra}
    pairs = []
    for name in missing:
        match = get_close_matches("".join(filter(str.isalnum, name.casefold())), plain, n=1, cutoff=0.75)
        pairs += [f"is {plain[one]!r} meant for {name!r}?" for one in match]
    return f" ({' '.join(pairs[:SHOWN])})" if pairs else ""


def listed(names: Sequence[str]) -> str:
    """Returns the first of these names, and how many more there are, for an error."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more


def kept(names: Names | None, rest: Rest) -> Names | None:
    """Returns the names after an index of the axes behind the rows; None where there are no such columns any more."""
    if names is None or all(item is Ellipsis for item in rest):
        return names
    match rest:
        case (slice() as chosen,):
            return names[chosen]
    return None


def joined(operation: str, mine: Names | None, theirs: Names | None) -> Names | None:
    """Returns the names of an operation's result on two arrays row by row; None where they are not sure.

    Args:
        operation: What it is called, for errors.
        mine: Names of the first.
        theirs: Names of the second.

    Raises:
        DataError: The same names in another order: columns of two kinds would be joined.
    """
    if mine is not None and theirs is not None and mine != theirs:
        if sorted(mine) == sorted(theirs):
            raise DataError(
                f"{operation}: expected the same columns in the same order, found {listed(mine)} and "
                f"{listed(theirs)}; load both with the same columns=[...]"
            )
        return None
    names = mine or theirs
    # A single column is stretched over all of the other's, whose number is not known here.
    return names if mine == theirs or (names is not None and len(names) > 1) else None


def stretched(names: Names | None, shape: tuple[int, ...]) -> Names | None:
    """Returns the names of an operation's result with an array of this shape that is the same for every row."""
    return names if names is None or not shape or shape[-1] in (1, len(names)) else None


def refuse_names(key: object, names: Names | None) -> None:
    """Refuses an index by names of columns, and says which position it is.

    Args:
        key: What stands in the brackets.
        names: Names of the columns, where they have any.

    Raises:
        PlanError: There are names in it.
    """
    items = key if isinstance(key, tuple | list) else (key,)
    wanted = [one for item in items for one in (item if isinstance(item, list) else [item]) if isinstance(one, str)]
    if not wanted:
        return
    unknown = [name for name in wanted if name not in (names or ())]
    if names is None or unknown:
        has = f"its columns are {listed(names)}" if names else "its columns have no names"
        raise PlanError(f"index {unknown[0]!r}: there is no such column; {has}; load(..., columns=[...]) takes by name")
    places = ", ".join(f"x[:, {names.index(name)}] is {name!r}" for name in wanted[:SHOWN])
    raise PlanError(
        f"index {wanted[0]!r}: columns are taken by position here: {places}; load(..., columns=[...]) takes by name"
    )
