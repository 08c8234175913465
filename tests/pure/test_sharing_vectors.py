# SPDX-License-Identifier: Apache-2.0
"""Sharing against a slow implementation that shares no code: every share as it leaves, every sum as it is published."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pure import sharing_reference
from pure.masking_kit import identities, roster_of

from fedray.errors import ProtocolError
from fedray.party.code_source import parsed
from fedray.protocol.checks.judge import OwnCheck
from fedray.protocol.checks.secret import GroupSecret
from fedray.protocol.config import Config, Encoding
from fedray.protocol.crypto.field import PRIME
from fedray.protocol.member import Member
from fedray.protocol.memory import ModelMemory
from fedray.protocol.messages import put_check
from fedray.protocol.pipeline import run
from fedray.protocol.policy import Policy
from fedray.protocol.sharing import ShareAdder
from fedray.protocol.sharing.agreement import Agreement, Partial
from fedray.protocol.sharing.roles import Roles
from fedray.protocol.sharing.sealing import ShareHeader, seal, unseal
from fedray.protocol.sharing.split import Blank, Splitter

SAVED: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "sharing.json").read_text())


def test_the_reference_shares_no_code() -> None:
    tree = parsed(Path(sharing_reference.__file__).read_text())
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert found == {"__future__", "json", "struct", "typing", "pure.recovery_reference", "pure.checks_reference"}


def test_the_reference_meets_published_values() -> None:
    """RFC 8439, sections 2.3.2, 2.5.2 and 2.8.2."""
    block = sharing_reference.chacha_block(bytes(range(32)), 1, bytes.fromhex("000000090000004a00000000"))
    assert block.hex().startswith("10f1e7e4d13b5915500fdd1fa32071c4")
    key = bytes.fromhex("85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b")
    tag = sharing_reference.poly1305(key, b"Cryptographic Forum Research Group")
    assert tag.hex() == "a8061dc1305136c6c22b8baf0c0127a9"
    plain = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would "
        b"be it."
    )
    associated, nonce = bytes.fromhex("50515253c0c1c2c3c4c5c6c7"), bytes.fromhex("070000004041424344454647")
    found = sharing_reference.sealed(bytes(range(0x80, 0xA0)), nonce, plain, associated)
    assert found[-16:].hex() == "1ae10b594f09e26a7e902ecbd0600691"


def test_the_saved_vectors_are_those_of_the_reference() -> None:
    assert sharing_reference.vectors() == SAVED


@pytest.fixture(params=SAVED, name="v")
def each(request: pytest.FixtureRequest) -> dict[str, Any]:
    return SAVED[request.param]


def config_of(v: dict[str, Any]) -> tuple[Config, Any, dict[str, Any]]:
    keys = identities(3)
    roster = roster_of(keys)
    encoding = Encoding(v["bits"])
    receivers = [roster.names[place] for place in v["nodes"]]
    config = Config.propose("sharing", roster, receivers, encoding, colluders=0, n_min=2)
    return config, roster, keys


def test_every_share_of_a_round(v: dict[str, Any]) -> None:
    config, roster, _ = config_of(v)
    roles = Roles.of(config, roster)
    group = GroupSecret(bytes.fromhex(v["group"]), bytes.fromhex(v["sid"]), 3)
    place = (bytes.fromhex(v["roster"]), v["number"], bytes.fromhex(v["ctx"]), len(v["sum"]), v["bits"])
    checks = group.checks("sharing", *place)
    assert checks._key.hex() == v["check_key"]
    for i, values in enumerate(v["inputs"]):
        rest = Blank(len(values), v["bits"])
        words = rest.words
        words[:] = np.array([value % 2 ** v["bits"] for value in values], words.dtype)
        home = roles.home(i)
        others = [m for m in range(len(v["nodes"])) if m != home]
        seeds: Iterator[bytes] = iter(bytes.fromhex(v["seeds"][f"{i}-{m}"]) for m in others)
        splitter = Splitter(len(others), words, compress=True, entropy=lambda _, seeds=seeds: next(seeds))
        own = OwnCheck(checks, i)
        run(words, own.product.take, splitter.take)
        assert own.result() == v["checks"][i]
        put_check(rest.data, splitter.cover(own.result()))
        for m, share in zip([*others, home], [*splitter.shares, rest.data], strict=True):
            place = (bytes.fromhex(v["sid"]), v["number"], i, m, bytes.fromhex(v["ctx"]))
            header = ShareHeader(*place, len(words), v["bits"], "words" if m == home else "seed")
            key = bytes.fromhex(v["channels"][f"{i}-{m}"])
            message = seal(key, header, share)
            assert message.tobytes().hex() == v["messages"][f"{i}-{m}"]
            assert unseal(key, message) == (share if isinstance(share, bytes) else share.tobytes())


def test_every_sum_that_is_published(v: dict[str, Any]) -> None:
    config, roster, keys = config_of(v)
    sid, number = bytes.fromhex(v["sid"]), v["number"]
    adders = []
    for m, place in enumerate(v["nodes"]):
        name = roster.names[place]
        channels = {i: bytes.fromhex(v["channels"][f"{i}-{m}"]) for i in range(3)}
        adders.append(ShareAdder(config, Member(name, keys[name], roster, Policy(), ModelMemory()), sid, channels))
        adders[-1].expect((range(number, number + 1), len(v["sum"])))
        for i in range(3):
            if i in v["members"] or f"{i}-{m}" in v["seeds"]:  # the third owner ends before its long share leaves
                adders[-1].add(roster.names[i], bytes.fromhex(v["messages"][f"{i}-{m}"]))
    members = [roster.names[i] for i in v["members"]]
    signed = [adder.sign(members) for adder in adders]
    for adder in adders:
        for place, survive in zip(v["nodes"], signed, strict=True):
            adder.hear(roster.names[place], survive)
    agreed = Agreement(sid, number, bytes.fromhex(v["ctx"]), tuple(v["members"]))
    assert agreed.statement.hex() == v["statement"]
    partials = [Partial.decode(adder.publish()) for adder in adders]
    assert [[int(word) for word in partial.words] for partial in partials] == v["totals"]
    total = [sum(column) % 2 ** v["bits"] for column in zip(*v["totals"], strict=True)]
    assert total == v["sum"]
    assert [partial.check for partial in partials] == v["check_totals"]
    assert sum(v["check_totals"]) % PRIME == v["check_sum"]


def test_a_vector_fails_where_the_form_differs(v: dict[str, Any]) -> None:
    """The last field of the associated data: a seed that is passed off as words does not open."""
    of = next(iter(v["seeds"]))
    i, m = map(int, of.split("-"))
    key, message = bytes.fromhex(v["channels"][of]), bytearray.fromhex(v["messages"][of])
    assert unseal(key, bytes(message)).hex() == v["seeds"][of]
    header = ShareHeader(
        bytes.fromhex(v["sid"]), v["number"], i, m, bytes.fromhex(v["ctx"]), 24 * 8 // v["bits"], v["bits"], "words"
    )
    with pytest.raises(ProtocolError, match="not from its owner, or was altered"):
        unseal(key, header.encode() + bytes(message[len(header.encode()) :]))
