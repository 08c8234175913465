# SPDX-License-Identifier: Apache-2.0
"""An SPU's definition is checked before anything starts."""

import pytest

import fedray as sf
from fedray.device.spu.definition import TRIPLES, read
from fedray.errors import PlanError

NODES = [{"party": name, "address": f"127.0.0.1:{9000 + k}"} for k, name in enumerate(("alice", "bob", "carol"))]


def defined(count=2, tls=None, **config):
    nodes = [dict(node) for node in NODES[:count]]
    for place, paths in (tls or {}).items():
        nodes[place]["tls"] = paths
    return {"nodes": nodes, "runtime_config": config}


def test_defaults_are_those_of_the_testing_definition():
    layout = read(defined(), None, None).layout
    assert (layout.protocol, layout.bits, layout.fraction, layout.parties, layout.replicated) == (
        "SEMI2K",
        128,
        18,
        2,
        False,
    )
    assert read(sf.utils.testing.cluster_def(["a", "b"]), None, None).layout == layout


@pytest.mark.parametrize(
    ("count", "protocol", "allowed"),
    [
        (2, "SEMI2K", True),
        (3, "SEMI2K", True),
        (2, "ABY3", False),
        (3, "ABY3", True),
        (2, "CHEETAH", True),
        (3, "CHEETAH", False),
    ],
)
def test_protocols_are_for_a_number_of_parties(count, protocol, allowed):
    if allowed:
        cluster = read(defined(count, protocol=protocol), None, None)
        assert cluster.layout.replicated == (protocol == "ABY3")
    else:
        with pytest.raises(PlanError, match=f"{protocol} is for exactly"):
            read(defined(count, protocol=protocol), None, None)


@pytest.mark.parametrize(
    ("definition", "match"),
    [
        (None, "'nodes'"),
        ({"nodes": NODES[:1]}, "at least two"),
        ({"nodes": [NODES[0], NODES[0]]}, "twice"),
        ({"nodes": ["alice", "bob"]}, "such as"),
        ({"nodes": NODES, "runtime_config": 3}, "runtime_config"),
        (defined(protocol="REF2K"), "protocol"),
        (defined(field="FM256"), "field"),
        (defined(fxp_fraction_bits=0), "fxp_fraction_bits"),
        (defined(fxp_fraction_bits=33, field="FM64"), "1 to 32"),
        (defined(fxp_fraction_bits=True), "fxp_fraction_bits"),
        (defined(colour="red"), r"unknown settings \['colour'\]"),
        (defined(beaver_type="MultiParty"), "beaver_type"),
        (defined(beaver_type="TrustedThirdParty"), "ttp_beaver_config"),
        (defined(tls={0: {"certificate": "a", "private_key": "b", "authority": "c"}}), "'bob'.*'tls'"),
        (defined(tls={0: {"certificate": "a"}, 1: {"certificate": "a"}}), "'alice'.*'tls'"),
    ],
)
def test_definitions_that_cannot_work(definition, match):
    with pytest.raises(PlanError, match=match):
        sf.SPU(definition)


@pytest.mark.parametrize("bound", [0, -1.0, True, "large", float("inf"), 2.0**41])
def test_bounds_that_cannot_work(bound):
    with pytest.raises(PlanError, match="bound"):
        sf.SPU(defined(), bound=bound)
    with pytest.raises(PlanError, match="bound"):
        sf.SPU(defined(field="FM32", fxp_fraction_bits=12), bound=1e6)


def test_links_are_numbers_by_name():
    with pytest.raises(PlanError, match="link_desc"):
        sf.SPU(defined(), link_desc={"recv_timeout_ms": "long"})
    assert read(defined(), {"recv_timeout_ms": 5}, None).runtime.link == {"recv_timeout_ms": 5}


def test_who_deals_triples_is_said_in_so_many_words():
    with pytest.raises(PlanError, match="every value that is multiplied or compared"):
        read(defined(), None, None).check_triples()
    read(defined(beaver_type="TrustedFirstParty"), None, None).check_triples()
    read(defined(protocol="CHEETAH"), None, None).check_triples()
    read(defined(3, protocol="ABY3"), None, None).check_triples()
    assert set(TRIPLES) == {"TrustedFirstParty", "TrustedThirdParty"}


def test_tls_is_at_every_node():
    paths = {"certificate": "a.crt", "private_key": "a.key", "authority": "ca.crt"}
    assert read(defined(tls={0: paths, 1: paths}), None, None).runtime.tls == (paths, paths)
    assert read(defined(), None, None).runtime.tls == ()
