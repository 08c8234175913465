# SPDX-License-Identifier: Apache-2.0
"""Every intermediate value of masking against vectors that a second implementation made."""

import ast
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pure import checks_reference, encoding_reference
from pure import masking_reference as reference
from pure.masking_kit import encode

from fedray.party.code_source import parsed
from fedray.protocol import handshake, totals
from fedray.protocol.config import ROUNDING, Config, Encoding
from fedray.protocol.crypto import keystream
from fedray.protocol.crypto.keys import Roster, kdf, public_bytes
from fedray.protocol.fixed_point import decode
from fedray.protocol.handshake import SessionKeys, introduce
from fedray.protocol.manifest import ExactTotal, Manifest, Tensor
from fedray.protocol.masking import pair_keys
from fedray.protocol.masking.collector import ViewCollector
from fedray.protocol.masking.frame import Masked
from fedray.protocol.masking.rounds import context_hash
from fedray.protocol.masking.shield import MaskingShield
from fedray.protocol.member import Member
from fedray.protocol.memory import ModelMemory
from fedray.protocol.pipeline import run
from fedray.protocol.policy import Policy
from fedray.protocol.scheme import Contribution, RoundContext, View

NAMES = ("masking_three_parties_64", "masking_smaller_view_32", "masking_repeat", "masking_integers")


def encoding_of(stated):
    settings = dict(stated)
    assert settings.pop("rounding") == ROUNDING
    return Encoding(**settings)


def load(name):
    return json.loads((reference.VECTORS / f"{name}.json").read_text(encoding="utf-8"))


def test_the_reference_shares_no_code():
    imported = set()
    for file in (reference.__file__, encoding_reference.__file__, checks_reference.__file__):
        tree = parsed(Path(file).read_text())
        imported |= {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
        imported |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    imported -= {"pure.encoding_reference", "pure.checks_reference"}  # looked at here, too
    assert not any(name.startswith(("fedray", "numpy", "pure")) for name in imported)


@pytest.mark.parametrize("name", [*NAMES, "keystream", "encoding"])
def test_the_files_are_what_the_reference_says(name):
    assert json.loads(json.dumps(reference.vectors()[name])) == load(name)


def test_the_reference_agrees_with_published_vectors():
    """RFC 7748 section 5.2, RFC 5869 A.1 (first 32 bytes), and GCM's test case 14: zeros under a zero key and nonce."""
    k = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    u = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    shared = "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    assert reference.x25519(k, u).hex() == shared
    salt, info = bytes(range(13)), bytes(range(0xF0, 0xFA))
    derived = reference.hkdf(b"\x0b" * 22, salt, info)
    assert derived.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
    assert reference.prg(bytes(32), 1, 64)[0].to_bytes(8, "little").hex() == "cea7403d4d606b6e"


@pytest.mark.parametrize("cipher", ["ctr", "gcm"])
def test_keystreams(cipher, monkeypatch):
    monkeypatch.setattr(keystream, "CIPHER", cipher)
    for key, expected in load("keystream").items():
        for bits in (32, 64):
            words = np.zeros(len(expected[f"{bits}"]), f"<u{bits // 8}")
            keystream.Pad([bytes.fromhex(key)], []).apply(words, 0)
            assert words.tolist() == expected[f"{bits}"]
        stream = np.zeros(1 << 13, "<u8")
        keystream.Pad([bytes.fromhex(key)], []).apply(stream, 0)
        assert reference.sha(stream.tobytes()).hex() == expected["sha256_64k"]


def test_encodings():
    for ring, reach, value, word in load("encoding"):
        manifest = Manifest((Tensor("v", (), "float64", 2.0**reach),), weighted=False, counted=True)
        given = Contribution(np.array([float.fromhex(value)]), 1, np.empty(0))
        assert int(encode(Encoding(ring), 3, manifest, given)[0]) == word


class Secrets:
    """Stands for both sources of randomness of a set-up."""

    def __init__(self, expected):
        self.privates = iter([bytes.fromhex(k) for k in expected["x25519"]])
        self.tokens = iter([bytes.fromhex(r) for r in (*expected["reveals"], expected["group"])])

    def generate(self):
        return X25519PrivateKey.from_private_bytes(next(self.privates))

    def token_bytes(self, size):
        assert size == 32
        return next(self.tokens)


class Session:
    """The package's side of one vector."""

    def __init__(self, vector, monkeypatch):
        given, self.expected = vector["given"], vector["expected"]
        self.names, config, self.monkeypatch = given["names"], given["config"], monkeypatch
        keys = [Ed25519PrivateKey.from_private_bytes(bytes.fromhex(k)) for k in self.expected["identities"]]
        self.roster = Roster.of(dict(zip(self.names, map(public_bytes, keys), strict=True)))
        self.config = Config.propose(
            "masking",
            self.roster,
            config["receivers"],
            encoding_of(config["encoding"]),
            colluders=config["colluders"],
            n_min=config["n_min"],
        )
        m = given["manifest"]
        bounds = [2.0 ** t["reach"] if t["dtype"].startswith("float") else None for t in m["tensors"]]
        tensors = (
            Tensor(t["name"], tuple(t["shape"]), t["dtype"], bound)
            for t, bound in zip(m["tensors"], bounds, strict=True)
        )
        metrics = tuple(ExactTotal(**t) for t in m["metrics"])
        self.manifest = Manifest(tuple(tensors), metrics, m["weighted"], m["counted"])
        source = Secrets(self.expected)
        monkeypatch.setattr(handshake, "X25519PrivateKey", source)
        monkeypatch.setattr(handshake, "secrets", source)
        self.joinings = [
            MaskingShield.joining(self.config, Member(name, key, self.roster, Policy(), ModelMemory()))
            for name, key in zip(self.names, keys, strict=True)
        ]

    def inputs(self, given):
        """Returns (party's place, contribution) of one round; while one is used, its carries are what is drawn."""
        kind = int if self.manifest.integers else float.fromhex
        for place, one in zip(given["members"], given["inputs"], strict=True):
            drawn = b"".join((carry << 24).to_bytes(8, "little") for carries in one["carries"] for carry in carries)
            self.monkeypatch.setattr(totals, "urandom", {len(drawn): drawn}.__getitem__)
            values = np.array([kind(v) for v in one["values"]])
            metrics = np.array([float.fromhex(v) for v in one["metrics"]])
            yield place, Contribution(values, one["weight"], metrics)


@pytest.fixture(params=NAMES)
def vector(request):
    return load(request.param)


def test_set_up(vector, monkeypatch):
    session, expected = Session(vector, monkeypatch), vector["expected"]
    assert session.roster.hash.hex() == expected["roster_hash"]
    assert session.config.encode().hex() == expected["config"]
    assert session.config.hash.hex() == expected["config_hash"]
    assert session.manifest.hash.hex() == expected["manifest_hash"]
    hellos = [joining.hello() for joining in session.joinings]
    assert [h.hex() for h in hellos] == expected["hellos"]
    confirms = [joining.confirm(hellos) for joining in session.joinings]
    assert [c.hex() for c in confirms] == expected["confirms"]
    given = []
    monkeypatch.setattr(handshake, "SessionKeys", lambda *of: given.append(of) or SessionKeys(*of))
    for joining in session.joinings:
        joining.start(confirms)
    for place, (scheme, *of) in enumerate(given):
        keys, channels = SessionKeys(scheme, *of), SessionKeys("sharing", *of)
        assert keys.group._secret.hex() == expected["group"]
        assert (scheme, keys.sending, keys.receiving, channels.roots) == ("masking", {}, {}, {})
        assert len(keys.roots) == len(session.names) - 1
        assert (keys.sid.hex(), keys.gseed.hex(), keys.index) == (expected["sid"], expected["gseed"], place)
        for other in keys.roots:
            low, high = min(place, other), max(place, other)
            assert keys.roots[other].hex() == expected["pair_roots"][f"{low},{high}"]
            assert channels.sending[other].hex() == expected["channels"][f"{place}>{other}"]
            assert channels.receiving[other].hex() == expected["channels"][f"{other}>{place}"]


def test_rounds(vector, monkeypatch):
    session = Session(vector, monkeypatch)
    shields = introduce(session.joinings)
    derived = set()
    monkeypatch.setattr(pair_keys, "kdf", lambda *given: derived.add(kdf(*given).hex()) or kdf(*given))
    previous, known = b"", {}
    for given, expected in zip(vector["given"]["rounds"], vector["expected"]["rounds"], strict=True):
        reaches, manifest = given["reaches"], session.manifest
        manifest = manifest if reaches is None else manifest.reaching(reaches)
        view = View(given["counter"], tuple(session.names[i] for i in given["members"]))
        model, settings = bytes.fromhex(given["model"]), bytes.fromhex(given["settings"])
        context = RoundContext(given["number"], model, settings, manifest, given["purpose"], given["repeats"])
        collector = ViewCollector(session.config, view, given["number"], manifest)
        for k, (place, made) in enumerate(session.inputs(given)):
            # A repeat is of the very same input.
            contribution = known[place] = made if given["repeats"] is None else known[place]
            assert np.array_equal(contribution.values, made.values)
            shield = shields[place]
            shield.join(view)
            assert shield.rounds.vid.hex() == expected["vid"]
            words = encode(session.config.encoding, session.config.parties, manifest, contribution)
            assert words.view(f"<i{words.itemsize}").tolist() == expected["words"][k]
            (message,) = shield.protect(context, contribution).values()
            checks = shield._judge._awaited.checks
            assert checks._key.hex() == expected["check_key"]
            product = checks.product()
            run(words, product.take)
            assert checks.check(product, [place]) == expected["checks"][k]
            assert bytes(message).hex() == expected["messages"][k]
            assert Masked.decode(message).ctx.hex() == expected["ctx"]
            collector.add(session.names[place], message)
        sid = bytes.fromhex(vector["expected"]["sid"])
        agreed = shields[0]._judge.confirm
        assert context_hash(session.config, sid, agreed, previous, context).hex() == expected["ctx"]
        previous = bytes.fromhex(expected["ctx"])
        assert set(expected["pair_keys"].values()) <= derived
        assert collector._total.tolist() == expected["total"]
        wanted, config, total = expected["opened"], session.config, collector.open()
        assert total.check == expected["check_sum"]
        opened = decode(config.encoding, config.contributors, manifest, total)
        kind = int if session.manifest.integers else float.fromhex
        assert opened.values.tolist() == [kind(v) for v in wanted["values"]]
        assert opened.metrics.tolist() == [float.fromhex(v) for v in wanted["metrics"]]
        assert opened.weight == wanted["weight"]
        counts = [extent.saturated for extent in opened.extents] + [extent.coarse for extent in opened.extents]
        assert counts == wanted["counts"]


def test_the_repeat_is_of_what_was_cut_off_and_of_what_was_too_coarse():
    first, second = (one["opened"] for one in load("masking_repeat")["expected"]["rounds"])
    assert first["counts"] == [2, 0, 0, 3]
    assert second["counts"] == [0, 0, 0, 0]
    assert first["values"] != second["values"]


def test_a_vector_fails_where_a_setting_differs(monkeypatch):
    """The comparison above can fail: another round number in the ratchet gives other messages."""
    vector = load(NAMES[0])
    session = Session(vector, monkeypatch)
    shields = introduce(session.joinings)
    given = vector["given"]["rounds"][0]
    model, settings = bytes.fromhex(given["model"]), bytes.fromhex(given["settings"])
    context = RoundContext(0, model, settings, session.manifest, given["purpose"])
    contribution = next(iter(session.inputs(given)))[1]
    (message,) = shields[0].protect(replace(context, number=1), contribution).values()
    assert bytes(message).hex() != vector["expected"]["rounds"][0]["messages"][0]
