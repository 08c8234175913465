# SPDX-License-Identifier: Apache-2.0
"""A process that ends in the middle of training on Ray: the weights are those of the same training without it."""

import pytest
from inline.dropouts import lets_end
from inline.federated import weights_of
from inline.training_dropouts import EPOCHS, ROUNDS, federated, fit, matches

from fedray.errors import PartyLost
from fedray.ml.nn.history import Dropout


@pytest.mark.timeout(240)
def test_training_goes_on_without_a_process_that_ends(start, cluster, capsys):
    fed, model = federated(start, "recover", address=cluster)
    first = weights_of(model)
    lets_end(fed.devices[1], fed.server, "before it signs", number=1)
    history = fit(fed, model, verbose=2)
    everybody, rest = ("alice", "bob", "carol", "dave"), ("alice", "carol", "dave")
    matches(fed, model, first, [everybody] * 2 + [rest] * (EPOCHS * ROUNDS - 2))
    assert history.dropouts == [
        Dropout(0, 2, "bob", "its process has ended", abandoned=False, rounds=EPOCHS * ROUNDS - 2)
    ]
    assert capsys.readouterr().out.count("bob dropped out") == 1
    with pytest.raises(PartyLost, match=r"'bob'.* its rows are gone with it"):
        fit(fed, model)
