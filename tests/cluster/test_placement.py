# SPDX-License-Identifier: Apache-2.0
"""A party that the cluster cannot start at once is tried again, and in the end the user learns what is free."""

import pytest
import ray

import fedray as sf
import fedray.runtime.ray as transport
from fedray.errors import PlanError

WANTED = {"bob": {"special": 1}}


@pytest.fixture
def holder(cluster, monkeypatch):
    """Takes all of the cluster's `special` for another program; nobody waits long for it."""
    monkeypatch.setattr(transport, "_START_SECONDS", 0.5)

    class Holder:
        def held(self):
            return True

    actor = ray.remote(Holder).options(num_cpus=0, resources={"special": 2}).remote()
    assert ray.get(actor.held.remote(), timeout=60)
    yield actor
    ray.kill(actor)


def test_a_party_that_finds_no_place_is_named_with_what_is_free_and_tried_again(holder, cluster, monkeypatch):
    with monkeypatch.context() as once:
        once.setattr(transport, "_START_TRIES", 1)
        with pytest.raises(PlanError, match=r"party 'bob' found no place.*asks for 1 special, free now are .*CPU"):
            sf.init(["bob"], cluster, resources=WANTED)

    make, tried = transport.RayTransport._actor, []

    def watched(self, config, node):
        """Lets the other program end, and patience return, when bob is tried a second time."""
        tried.append(config.name)
        if tried.count("bob") == 2:
            ray.kill(holder)
            monkeypatch.setattr(transport, "_START_SECONDS", 60.0)
        return make(self, config, node)

    monkeypatch.setattr(transport.RayTransport, "_actor", watched)
    sf.init(["alice", "bob"], cluster, resources=WANTED)
    assert tried.count("bob") == 2
    assert sf.reveal([sf.PYU(name)(abs)(-1) for name in ("alice", "bob")]) == [1, 1]
    sf.shutdown()


def test_a_node_that_vanishes_while_a_session_begins_is_tried_again_and_then_named(cluster, monkeypatch):
    make, tried, lasting = transport.RayTransport._actor, [], []

    def vanishing(self, config, node):
        """Ends alice's process as a node that goes takes it along: the first time, or every time."""
        tried.append(config.name)
        made = make(self, config, node)
        if config.name == "alice" and (lasting or tried.count("alice") == 1):
            ray.kill(made)
        return made

    monkeypatch.setattr(transport.RayTransport, "_actor", vanishing)
    sf.init(["alice", "bob"], cluster)
    assert (tried.count("alice"), tried.count("bob")) == (2, 1)
    assert sf.reveal([sf.PYU(name)(abs)(-1) for name in ("alice", "bob")]) == [1, 1]
    sf.shutdown()
    lasting.append(True)
    with pytest.raises(PlanError, match="party 'alice' could not start: its node has gone"):
        sf.init(["alice"], cluster)
    assert tried.count("alice") == 5
