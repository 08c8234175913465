# SPDX-License-Identifier: Apache-2.0
"""A server that puts a smaller view into an answer of another kind: nobody may follow it there.

Rounds over all rows are not held over a smaller view (`Trainer._check_rows`), since the two sums would differ by one
party's input. That is looked at after an abandoned round; a view that comes another way would go past it.
"""

import numpy as np
import pytest
from inline.federated import gradient, regression, weights_of, world
from inline.lying_server import Lie, lie

from fedray.errors import ServerFault
from fedray.ml.nn import federation
from fedray.party.rounds.contributor import Contributor
from fedray.protocol.scheme import View
from fedray.security.aggregation import SecureAggregator

ROWS, RATE = 12, 0.5
REST = ("alice", "bob", "carol")
SMALLER = View(1, REST)
SECOND = 5
"""Number of the second epoch's round: behind the first one there are as many to spare as there are parties."""


def federated(start):
    fed = world(start, rows=(ROWS,) * 4, backend="numpy")
    return fed, fed.model(regression(RATE), aggregator=SecureAggregator(fed.server, fed.devices, on_dropout="abandon"))


def fit(fed, model):
    """Two rounds, each over all rows of everybody."""
    model.fit(fed.x, fed.y, batch_size=ROWS, epochs=2, verbose=0)


def smuggled(verdict):
    """Tells of a smaller view in the answer to the first round, and pins the model, but for a millionth."""

    def says(sender, session, number, model):
        said = verdict if number == 0 else "opened"
        # "missed" is an error without a view as well: whoever is first, it is to be this one.
        view = SMALLER if number == 0 and (sender in REST or verdict == "missed") else None
        return Lie(said, model + np.float32(1e-6) if said == "opened" else None, view)

    return says


@pytest.mark.parametrize(
    "verdict", ["opened", "missed", "next", "left", "aborted", pytest.param("renew", marks=pytest.mark.slow)]
)
def test_a_view_in_any_other_answer_is_an_error_that_names_the_server(start, monkeypatch, verdict):
    fed, model = federated(start)
    server = lie(monkeypatch, smuggled(verdict))
    with pytest.raises(ServerFault, match=f"server 'server' put a smaller view into an answer '{verdict}'"):
        fit(fed, model)
    assert [place for place, words in server.sent.items() if "alice" in words] == [(1, 0)], "nothing else left"


def test_a_party_that_follows_any_view_shows_who_is_not_in_it(start, monkeypatch):
    """The broken variant: a view counts whatever the answer says, and the second sum lacks dave's gradient only.

    Nor does the driver compare whose inputs the parties have seen summed: it would end the run before the second one.
    """
    monkeypatch.setattr(Contributor, "_check_view", lambda *_: None)
    monkeypatch.setattr(federation, "split", lambda _: ("", ()))
    fed, model = federated(start)
    before = weights_of(model)
    server = lie(monkeypatch, smuggled("opened"))
    fit(fed, model)
    everybody, rest = server.opened(1, 0, (*REST, "dave")), server.opened(1, SECOND, REST)
    found = (before[0].ravel() - (4 * everybody - 3 * rest)[:12]) / RATE  # the bias begins at 0 and is cut off
    np.testing.assert_allclose(found, gradient(before, *fed.parts[3])[0].ravel(), atol=1e-4)
