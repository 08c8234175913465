# SPDX-License-Identifier: Apache-2.0
"""Public data sets that come with fedray, dealt to parties as if each had always held its share.

Every party reads the bundled file in its own process and keeps its own rows; nothing is sent from the driver but row
numbers. Knows where the files are and what is in them. Needs no network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

import fedray.data
from fedray.data.apportion import bounded_range, even_ranges, fraction_ranges, share_bounds
from fedray.data.ndarray import FedNdarray
from fedray.device import PYU, PYUObject
from fedray.errors import DataError, PlanError

Share: TypeAlias = float | tuple[float, float] | tuple[int, int]
Parts: TypeAlias = Sequence[PYU] | Mapping[PYU, Share]
Pair: TypeAlias = tuple[FedNdarray, FedNdarray]

_FILES: Mapping[str, str] = {"mnist": "mnist.npz"}
_MNIST_ROWS = (60_000, 10_000)
_MNIST_LABELS = 10


def dataset(name: str) -> str:
    """Returns the path of a bundled file on this machine.

    Args:
        name: `"mnist"`: an `.npz` file with x_train uint8[60000, 28, 28], y_train uint8[60000], x_test
            uint8[10000, 28, 28] and y_test uint8[10000]. CC BY-SA 3.0, Y. LeCun and C. Cortes.

    Raises:
        PlanError: There is no such data set.

    Example:
        >>> from fedray.utils.simulation.datasets import dataset
        >>> with np.load(dataset("mnist")) as archive:
        ...     archive["x_test"].shape
        (10000, 28, 28)
    """
    if name not in _FILES:
        raise PlanError(f"dataset {name!r}: expected one of {list(_FILES)}")
    # Asked inside the party, this gives the path on the party's own machine.
    return str(Path(fedray.data.__file__).with_name(_FILES[name]))


def load_mnist(
    parts: Parts, normalized_x: bool = True, categorical_y: bool = False, is_torch: bool = False
) -> tuple[Pair, Pair]:
    """Returns ((x_train, y_train), (x_test, y_test)) of MNIST, each party with its share of both sets.

    Args:
        parts: Who gets which rows, of the 60,000 for training and the 10,000 for the test alike. A list of parties:
            even shares, in file order. A dict of fractions, e.g. `{alice: 0.2, bob: 0.5}`: consecutive shares in file
            order. A dict of (start, end), e.g. `{alice: (0.0, 0.3)}` or in rows of the training set `{alice: (0,
            18000)}`; the test set is cut at the same fractions, and shares may overlap.
        normalized_x: Whether images are float32 from 0 to 1; otherwise they are uint8 from 0 to 255.
        categorical_y: Whether labels are one-hot, float32[n, 10]; otherwise they are int64[n].
        is_torch: Whether images are [n, 1, 28, 28], as PyTorch's layers expect; otherwise they are [n, 28, 28].

    Raises:
        PlanError: `parts` is of another kind, names a party twice, or a share is impossible.
        DataError: A share holds no row of one of the sets.

    Example:
        >>> from fedray.utils.simulation.datasets import load_mnist
        >>> (x_train, y_train), (x_test, y_test) = load_mnist({alice: (0, 600), bob: (600, 1800)})
        >>> x_train
        FedNdarray(shape=(1800, 28, 28), dtype=float32, rows={alice: 600, bob: 1200})
        >>> len(x_test)
        300
    """
    parties, train_rows, test_rows = _shares(parts)
    for party, train, test in zip(parties, train_rows, test_rows, strict=True):
        # Told here by the numbers; the first `fit` would only say that an array is empty.
        if not len(train) or not len(test):
            raise DataError(
                f"party {party.name!r}: expected at least one row of each set, found {len(train)} for training and "
                f"{len(test)} for the test; give {party.name} a larger share"
            )
    held: dict[PYU, tuple[PYUObject, ...]] = {
        party: party(_read_mnist, num_returns=4)(train, test, normalized_x, categorical_y, is_torch)
        for party, train, test in zip(parties, train_rows, test_rows, strict=True)
    }
    x_train, y_train, x_test, y_test = (
        FedNdarray({party: arrays[position] for party, arrays in held.items()}) for position in range(4)
    )
    return (x_train, y_train), (x_test, y_test)


def _shares(parts: Parts) -> tuple[list[PYU], tuple[range, ...], tuple[range, ...]]:
    """Returns (parties, training rows of each, test rows of each)."""
    if not isinstance(parts, Mapping | Sequence) or not parts or not all(isinstance(party, PYU) for party in parts):
        raise PlanError("parts: expected [alice, bob] or {alice: 0.4, bob: 0.6} with at least one PYU")
    parties = list(parts)
    if len(set(parties)) != len(parties):
        raise PlanError(f"parts={[party.name for party in parties]}: a party is named twice")
    if not isinstance(parts, Mapping):
        train_rows, test_rows = (even_ranges(total, len(parties)) for total in _MNIST_ROWS)
        return parties, train_rows, test_rows
    fractions = [share for share in parts.values() if isinstance(share, int | float) and not isinstance(share, bool)]
    if len(fractions) == len(parts):
        train_rows, test_rows = (fraction_ranges(total, fractions) for total in _MNIST_ROWS)
        return parties, train_rows, test_rows
    pairs = [tuple(share) for share in parts.values() if isinstance(share, tuple | list) and len(share) == 2]
    if len(pairs) != len(parts):
        raise PlanError(
            f"parts: expected a fraction for each party or (start, end) for each, found {list(parts.values())}"
        )
    # Rows are those of the training set; as fractions they cut the test set alike.
    bounds = [share_bounds(start, end, _MNIST_ROWS[0]) for start, end in pairs]
    train_rows, test_rows = (tuple(bounded_range(total, pair) for pair in bounds) for total in _MNIST_ROWS)
    return parties, train_rows, test_rows


def _read_mnist(
    train: range, test: range, normalized_x: bool, categorical_y: bool, is_torch: bool
) -> tuple[NDArray[Any], ...]:
    """Returns this party's rows of x_train, y_train, x_test and y_test. Runs inside the party."""
    with np.load(dataset("mnist"), allow_pickle=False) as archive:
        arrays = []
        for part, rows in (("train", train), ("test", test)):
            # Copied out, so that the rest of the set, of which this is a view, can be freed.
            images = archive[f"x_{part}"][rows.start : rows.stop].copy()
            labels = archive[f"y_{part}"][rows.start : rows.stop].copy()
            arrays += [_images(images, normalized_x, is_torch), _labels(labels, categorical_y)]
    return tuple(arrays)


def _images(images: NDArray[np.uint8], normalized: bool, is_torch: bool) -> NDArray[Any]:
    scaled = images.astype(np.float32) / np.float32(255) if normalized else images
    return scaled[:, None] if is_torch else scaled


def _labels(labels: NDArray[np.uint8], categorical: bool) -> NDArray[Any]:
    return np.eye(_MNIST_LABELS, dtype=np.float32)[labels] if categorical else labels.astype(np.int64)
