# SPDX-License-Identifier: Apache-2.0
"""A party that the cluster cannot start at once is tried again, and in the end the user learns what is free."""

import threading
import time

import pytest
import ray

import fedray as sf
import fedray.runtime.ray as transport
from fedray.errors import PlanError


@pytest.fixture
def holder(cluster, monkeypatch):
    """Takes all of the cluster's `special` for another program."""
    monkeypatch.setattr(transport, "_START_SECONDS", 6.0)

    class Holder:
        def held(self):
            return True

    actor = ray.remote(Holder).options(num_cpus=0, resources={"special": 2}).remote()
    assert ray.get(actor.held.remote(), timeout=60)
    yield actor
    ray.kill(actor)


def test_a_party_that_finds_no_place_is_named_with_what_is_free(holder, cluster, monkeypatch):
    monkeypatch.setattr(transport, "_START_TRIES", 1)
    with pytest.raises(PlanError, match=r"party 'bob' found no place.*asks for 1 special, free now are .*CPU"):
        sf.init(["alice", "bob"], cluster, resources={"bob": {"special": 1}})
    ray.kill(holder)
    monkeypatch.setattr(transport, "_START_SECONDS", 60.0)
    sf.init(["alice", "bob"], cluster, resources={"bob": {"special": 1}})
    assert sf.reveal(sf.PYU("bob")(abs)(-1)) == 1
    sf.shutdown()


def test_a_party_is_tried_again(holder, cluster):
    threading.Thread(target=lambda: (time.sleep(7), ray.kill(holder))).start()
    sf.init(["alice", "bob"], cluster, resources={"bob": {"special": 1}})
    assert sf.reveal([sf.PYU(name)(abs)(-1) for name in ("alice", "bob")]) == [1, 1]
    sf.shutdown()
