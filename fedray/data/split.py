# SPDX-License-Identifier: Apache-2.0
"""Splitting arrays into training and test sets, every party its own rows.

Knows how many rows each party holds. Which rows are drawn is decided inside the party and not seen outside it.
"""

from __future__ import annotations

from fedray.data import inside
from fedray.data.apportion import apportion, set_sizes
from fedray.data.ndarray import FedNdarray
from fedray.data.parts import require_same_rows
from fedray.data.rows import is_integer
from fedray.errors import PlanError
from fedray.runtime.session import current


def train_test_split(
    *arrays: FedNdarray,
    test_size: float | None = None,
    train_size: float | None = None,
    random_state: int | None = None,
    shuffle: bool = True,
) -> list[FedNdarray]:
    """Returns `[first_train, first_test, second_train, second_test, ...]`, as scikit-learn does.

    Every array is split at the same rows, so `x` and `y` stay aligned. The test rows are dealt to the parties in
    proportion to the rows they hold, and each party draws its own. A small party may end up with no row in one of the
    two sets; its part there is empty. Where `test_size` and `train_size` are both given and leave rows over, those are
    in neither.

    Args:
        arrays: One or more arrays, with the same rows at the same parties.
        test_size: Fraction of the rows, or their number over all parties. By default what `train_size` leaves, or a
            quarter.
        train_size: Likewise for the training set. By default what `test_size` leaves.
        random_state: Seed of the draw, any integer; by default the session's seed.
        shuffle: Whether to draw at random; otherwise each party's last rows are its test rows.

    Raises:
        PlanError: Sizes that are impossible, or nothing to split.
        DataError: The arrays' rows do not go together.

    Example:
        >>> from fedray.data.ndarray import load
        >>> from fedray.data.split import train_test_split
        >>> x = load({alice: np.arange(8), bob: np.arange(4)})
        >>> train, test = train_test_split(x, test_size=0.25)
        >>> len(train), len(test)
        (9, 3)
        >>> test.partition_shape()
        {PYU(name='alice'): (2,), PYU(name='bob'): (1,)}
    """
    if not arrays:
        raise PlanError("train_test_split: expected at least one FedNdarray, e.g. train_test_split(x, y)")
    for position, array in enumerate(arrays):
        if not isinstance(array, FedNdarray):
            raise PlanError(
                f"train_test_split: argument {position + 1}: expected a FedNdarray, found {type(array).__name__}"
            )
        require_same_rows(f"array {position + 1}", array.parts(), arrays[0].parts())
    if random_state is not None and not is_integer(random_state):
        raise PlanError(f"train_test_split: random_state={random_state!r}: expected an integer or None")
    rows = [part.shape[0] for part in arrays[0].parts().values()]
    train_rows, test_rows = set_sizes(sum(rows), test_size, train_size)
    # Test rows first, the rest of each party's rows then bounds its training rows, so no row is needed twice.
    tests = apportion(test_rows, rows)
    trains = apportion(train_rows, [size - test for size, test in zip(rows, tests, strict=True)])
    # One seed for all parties: inside, each mixes it with its own name, so their draws differ.
    seed = current().seed if random_state is None else int(random_state)
    parts: list[FedNdarray] = []
    for array in arrays:
        pairs = {
            # Only numbers of rows go in. Which rows are drawn is decided inside, and the same for each array.
            party: party(inside.split, num_returns=2)(party.name, part, train, test, seed, shuffle)
            for (party, part), train, test in zip(array.partitions.items(), trains, tests, strict=True)
        }
        parts += [FedNdarray({party: pair[side] for party, pair in pairs.items()}, array.columns) for side in (0, 1)]
    return parts
