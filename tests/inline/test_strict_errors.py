# SPDX-License-Identifier: Apache-2.0
"""`egress="strict"` where fedray quotes what a party's own code and files say: the quotation stays in the party."""

import numpy as np
import pytest
from inline.federated import World, world

import fedray as sf
from fedray.data.ndarray import load
from fedray.errors import EgressDenied, FedRayError
from fedray.party import failures
from fedray.security.aggregation import SecureAggregator

SECRET = "4711"


class Rows:
    """A table that cannot be pickled, and quotes itself where it says so."""

    def __reduce__(self):
        raise ValueError(f"row {SECRET}")


def builder_that_quotes(kind):
    def builder():
        raise getattr(sf.errors, kind)(f"row {SECRET}")

    return builder


def file_of(w: World, path, save):
    save(path)
    return load(dict.fromkeys(w.devices, str(path))).parts()


def total(w: World, value):
    return SecureAggregator(w.server, w.devices).sum([device(value)() for device in w.devices])


ATTEMPTS = {
    "a builder's DataError": lambda w, _: w.model(builder_that_quotes("DataError")).fit(w.x, w.y, batch_size=10),
    "a builder's PlanError": lambda w, _: w.model(builder_that_quotes("PlanError")).fit(w.x, w.y, batch_size=10),
    "a key of text": lambda w, _: total(w, lambda: {f"patient {SECRET}": "text"}),
    "a key of NaN": lambda w, _: total(w, lambda: {f"patient {SECRET}": np.full(2, np.nan)}),
    "a key of too much": lambda w, _: total(w, lambda: {f"patient {SECRET}": np.full(2, 1e300)}),
    "rows asked for": lambda w, _: sf.reveal(w.devices[0](Rows)()),
    "rows moved": lambda w, _: sf.wait(w.devices[0](Rows)().to(w.devices[1])),
    "names of arrays": lambda w, path: file_of(
        w, path / "x.npz", lambda f: np.savez(f, **{f"patient {SECRET}": np.ones(2), "b": np.ones(2)})
    ),
    "names of fields": lambda w, path: file_of(
        w, path / "x.npy", lambda f: np.save(f, np.zeros(2, [(f"patient {SECRET}", float)]))
    ),
}


@pytest.fixture
def strict(start) -> World:
    return world(start, rows=(6, 6), backend="numpy", egress="strict")


def told(error: BaseException) -> str:
    return "\n".join([str(error), repr(vars(error)), *getattr(error, "__notes__", [])])


def test_what_fedray_quotes_stays_in_the_party(strict, tmp_path):
    for what, attempt in ATTEMPTS.items():
        with pytest.raises(FedRayError) as caught:
            attempt(strict, tmp_path)
        assert SECRET not in told(caught.value), what
        assert isinstance(caught.value, EgressDenied) == what.startswith("rows"), what
        assert "party '" in str(caught.value), what


def test_a_party_that_believes_its_own_text_is_found(strict, tmp_path, monkeypatch):
    """The broken variant: errors of fedray's classes, raised in fedray's files, leave as they are."""
    monkeypatch.setattr(failures, "_discreet", str)
    monkeypatch.setattr(failures, "_raised_by_us", lambda _trace: True)
    for what in ("a builder's DataError", "a key of text", "a key of NaN"):
        with pytest.raises(FedRayError, match=SECRET):
            ATTEMPTS[what](strict, tmp_path)
