# SPDX-License-Identifier: Apache-2.0
"""What a hostile coordinator or party may try against set-up and rounds of masking, each refused or made noise."""

import dataclasses

import numpy as np
import pytest
from pure.masking_kit import context_of, identities, manifest_of, plain_values, roster_of, session

from fedray.errors import EncodingError, ProtocolError
from fedray.protocol.config import Config, Encoding
from fedray.protocol.crypto.keys import generate_identity, sign
from fedray.protocol.masking.frame import Masked
from fedray.protocol.masking.shield import MaskingShield
from fedray.protocol.member import Member
from fedray.protocol.memory import ModelMemory
from fedray.protocol.messages import Confirm, Hello
from fedray.protocol.policy import Policy
from fedray.protocol.scheme import View

KEYS = identities(4)
ROSTER = roster_of(KEYS)
CONFIG = Config.propose("masking", ROSTER, ["server"], Encoding(weight_bound=10))
MODEL = b"m" * 32
ZEROS = plain_values(np.zeros(3))


def member(name, roster=ROSTER):
    return Member(name, KEYS[name], roster, Policy(), ModelMemory())


def joinings():
    return [MaskingShield.joining(CONFIG, member(name)) for name in ROSTER.names]


def start(policy=None, **settings):
    return session(4, keys=KEYS, encoding=Encoding(weight_bound=10), policy=policy, **settings)


def resigned(hello, name="p01", key=None, **changes):
    """A Hello with other contents, signed with a party's key or another one."""
    changed = dataclasses.replace(Hello.decode(hello), **changes)
    return dataclasses.replace(changed, signature=sign(key or KEYS[name], changed.statement)).encode()


class TestSetUp:
    def test_a_swapped_public_key(self):
        parties = joinings()
        hellos = [p.hello() for p in parties]
        hellos[1] = dataclasses.replace(Hello.decode(hellos[1]), public=b"\x09" + bytes(31)).encode()
        with pytest.raises(ProtocolError, match="not signed"):
            parties[0].confirm(hellos)

    @pytest.mark.parametrize(
        ("change", "fault"),
        [
            ({"config": bytes(32)}, "another Config"),
            ({"index": 2}, "not signed by it"),
            ({"key": generate_identity()}, "not signed by it"),
            ({"name": "p02"}, "not signed by it"),
        ],
        ids=lambda v: str(next(iter(v))) if isinstance(v, dict) else "",
    )
    def test_a_hello_that_does_not_fit(self, change, fault):
        parties = joinings()
        hellos = [p.hello() for p in parties]
        hellos[1] = resigned(hellos[1], **change)
        with pytest.raises(ProtocolError, match=fault):
            parties[0].confirm(hellos)

    def test_hellos_in_another_order_or_number(self):
        for change in (
            lambda h: [h[1], h[0], *h[2:]],
            lambda h: h[:3],
            lambda h: [*h, h[0]],
            lambda h: [h[0], h[1], h[1], h[3]],
        ):
            parties = joinings()
            with pytest.raises(ProtocolError):
                parties[0].confirm(change([p.hello() for p in parties]))

    def test_a_reflected_hello(self):
        """A party's own key as somebody else's: refused although the other one signed it."""
        parties = joinings()
        hellos = [p.hello() for p in parties]
        mine = Hello.decode(hellos[0])
        hellos[1] = resigned(hellos[1], public=mine.public)
        with pytest.raises(ProtocolError, match="same key"):
            parties[0].confirm(hellos)

    def test_the_own_hello_altered_or_of_an_old_session(self):
        old, new = joinings(), joinings()
        hellos = [p.hello() for p in new]
        hellos[0] = old[0].hello()
        with pytest.raises(ProtocolError, match="own Hello"):
            new[0].confirm(hellos)

    def test_one_hello_in_two_sessions(self):
        parties, others = joinings(), joinings()
        hellos = [p.hello() for p in parties]
        first = parties[0].confirm(hellos)
        assert parties[0].confirm(hellos) == first
        with pytest.raises(ProtocolError, match="serves one session"):
            parties[0].confirm([hellos[0], *(p.hello() for p in others[1:])])

    def test_a_failed_set_up_is_over(self):
        parties = joinings()
        hellos = [p.hello() for p in parties]
        with pytest.raises(EncodingError):
            parties[0].confirm([hellos[0], b"noise", *hellos[2:]])
        with pytest.raises(ProtocolError, match="start a new set-up"):
            parties[0].confirm(hellos)

    def test_different_hellos_shown_to_different_parties(self):
        parties, others = joinings(), joinings()
        hellos = [p.hello() for p in parties]
        split = [*hellos[:3], others[3].hello()]
        confirms = [parties[0].confirm(hellos), parties[1].confirm(hellos), parties[2].confirm(split)]
        confirms.append(parties[3].confirm(hellos))
        with pytest.raises(ProtocolError, match="p02 saw other Hellos"):
            parties[0].start(confirms)

    @pytest.mark.parametrize("change", ["reveal", "swapped", "missing", "stranger", "replayed"])
    def test_a_confirm_that_does_not_fit(self, change):
        parties = joinings()
        hellos = [p.hello() for p in parties]
        confirms = [p.confirm(hellos) for p in parties]
        decoded = Confirm.decode(confirms[1])
        if change == "reveal":
            other = dataclasses.replace(decoded, reveal=bytes(32))
            confirms[1] = dataclasses.replace(other, signature=sign(KEYS["p01"], other.statement)).encode()
        elif change == "stranger":
            signature = sign(generate_identity(), decoded.statement)
            confirms[1] = dataclasses.replace(decoded, signature=signature).encode()
        elif change == "replayed":
            old = joinings()
            old_hellos = [p.hello() for p in old]
            confirms[1] = old[1].confirm(old_hellos)
        else:
            confirms = confirms[:3] if change == "missing" else [confirms[0], confirms[2], confirms[1], confirms[3]]
        with pytest.raises(ProtocolError):
            parties[0].start(confirms)
        with pytest.raises(ProtocolError, match="not expected"):
            parties[0].start([p.confirm(hellos) for p in parties[1:]])

    def test_a_key_of_order_one(self):
        """Its owner signed it, and still nobody makes keys from it."""
        parties = joinings()
        hellos = [p.hello() for p in parties]
        hellos[1] = resigned(hellos[1], public=bytes(32))
        assert Hello.decode(hellos[1]).public == bytes(32)
        with pytest.raises(ProtocolError, match="would be zero"):
            parties[0].confirm(hellos)

    def test_another_roster(self):
        keys = {**KEYS, "p02": generate_identity()}
        other = roster_of(keys)
        config = Config.propose("masking", other, ["server"], Encoding())
        with pytest.raises(ProtocolError, match="compare roster hashes"):
            MaskingShield.joining(config, member("p00"))
        with pytest.raises(ProtocolError, match="another identity key"):
            member("p02", other)
        with pytest.raises(ProtocolError, match="not in the roster"):
            Member("mallory", KEYS["p02"], ROSTER, Policy(), ModelMemory())

    def test_a_config_of_another_scheme(self):
        with pytest.raises(ProtocolError, match="scheme 'masking'"):
            MaskingShield.joining(dataclasses.replace(CONFIG, scheme="plain"), member("p00"))

    def test_every_session_has_its_own_keys(self):
        one, two = start(), start()
        assert one.shields["p00"]._sid != two.shields["p00"]._sid
        assert set(one.shields["p00"]._pair_keys._keys.values()).isdisjoint(
            two.shields["p00"]._pair_keys._keys.values()
        )
        roots = [s._pair_keys._keys for s in one.shields.values()]
        assert all(roots[i][j] == roots[j][i] for i in range(4) for j in range(4) if i != j)


def fill(kit, contexts, manifest, view=None):
    collector = kit.collector(next(iter(contexts.values())).number, manifest, view)
    for name, context in contexts.items():
        collector.add(name, kit.send(name, context, ZEROS))
    return collector


class TestRounds:
    manifest = manifest_of(3)

    def test_two_views_for_one_round(self):
        """Asked in its old view, moved to another one, asked again for the same round."""
        kit = start()
        shield = kit.shields["p00"]
        kit.send("p00", context_of(0, self.manifest), ZEROS)
        shield.join(View(1, kit.names[:3]))
        with pytest.raises(ProtocolError, match="round 0 is over"):
            kit.send("p00", context_of(0, self.manifest), ZEROS)

    @pytest.mark.parametrize("what", ["models", "settings", "purposes"])
    def test_parties_told_different_things(self, what):
        kit = start()
        usual = context_of(0, self.manifest, MODEL)
        other = {
            "models": dataclasses.replace(usual, model=b"x" * 32),
            "settings": dataclasses.replace(usual, settings=b"learning rate 0"),
            "purposes": dataclasses.replace(usual, purpose="evaluate"),
        }[what]
        collector = fill(kit, dict.fromkeys(kit.names, usual) | {"p02": other}, self.manifest)
        with pytest.raises(ProtocolError, match="p02 took part with another model, settings or history"):
            collector.open()
        self.hide_the_difference(collector)

    def hide_the_difference(self, collector):
        """Even where the headers are made to agree, the sum is noise and the check word says so."""
        collector._headers = dict.fromkeys(collector._headers, next(iter(collector._headers.values())))
        collector._check_headers = lambda: None
        with pytest.raises(ProtocolError, match="check word"):
            collector.open()

    def test_parties_in_different_views(self):
        kit = start(policy=Policy(colluders=0), colluders=0)
        kit.join(View(1, kit.names[:3]), kit.names[:2])
        collector = fill(kit, dict.fromkeys(kit.names, context_of(0, self.manifest)), self.manifest)
        with pytest.raises(ProtocolError, match="another view"):
            collector.open()
        self.hide_the_difference(collector)

    def test_a_party_that_missed_a_round(self):
        """Its history differs from the others': what it sends next does not open."""
        kit = start()
        for name in kit.names[:3]:
            kit.send(name, context_of(0, self.manifest), ZEROS)
        collector = fill(kit, dict.fromkeys(kit.names, context_of(1, self.manifest)), self.manifest)
        with pytest.raises(ProtocolError, match=r"p03 took part with another .*history"):
            collector.open()

    def test_an_incomplete_sum_is_noise(self):
        kit = start()
        collector = fill(kit, dict.fromkeys(kit.names[:3], context_of(0, self.manifest)), self.manifest)
        assert collector.missing() == {"p03"}
        assert collector.advance() is None
        with pytest.raises(ProtocolError, match=r"no vector yet from \['p03'\]"):
            collector.open()

    def test_a_sum_is_opened_once(self):
        """A vector delivered late makes no sum of its own."""
        kit = start()
        context = context_of(0, self.manifest)
        collector = fill(kit, dict.fromkeys(kit.names, context), self.manifest)
        again = kit.send(kit.names[0], context, ZEROS)
        collector.open()
        collector.add(kit.names[0], again)
        with pytest.raises(ProtocolError, match="opened before"):
            collector.open()

    def test_a_vector_delivered_twice(self):
        kit = start()
        context = context_of(0, self.manifest)
        collector = fill(kit, dict.fromkeys(kit.names, context), self.manifest)
        collector.add("p01", bytes(kit.send("p01", context, ZEROS)))
        other = kit.send("p01", context, ZEROS).copy()
        other[-30] ^= 1
        with pytest.raises(ProtocolError, match="a second, different vector"):
            collector.add("p01", other)
        assert kit.read(collector.open(), self.manifest).values.tolist() == [0, 0, 0]

    def test_an_altered_vector(self):
        kit = start()
        context = context_of(0, self.manifest)
        for place, fault in ((-13, "check word"), (-21, "weight"), (-45, "beyond")):
            collector = kit.collector(0, self.manifest)
            for name in kit.names:
                message = kit.send(name, context, ZEROS).copy()
                message[place] ^= 0x80 * (name == "p01")
                collector.add(name, message)
            with pytest.raises(ProtocolError, match=fault):
                kit.read(collector.open(), self.manifest)

    @pytest.mark.parametrize(
        "change", ["stranger", "number", "size", "ring", "noise", "left out", "other sender's", "another session's"]
    )
    def test_a_message_that_does_not_fit(self, change):
        kit = start()
        context = context_of(3, self.manifest)
        collector = kit.collector(3, self.manifest, View(0, kit.names))
        message = kit.send("p01", context, ZEROS)
        if change == "another session's":
            for name in kit.names:
                source = start() if name == "p01" else kit
                collector.add(name, source.send(name, context, ZEROS))
            with pytest.raises(ProtocolError, match="p01 took part with another session"):
                collector.open()
            return
        if change == "other sender's":
            for name in kit.names:
                collector.add(name, kit.send({"p00": "p01", "p01": "p00"}.get(name, name), context, ZEROS))
            with pytest.raises(ProtocolError, match="another view"):
                collector.open()
            return
        sender = "p01"
        if change == "stranger":
            sender = "mallory"
        elif change == "number":
            message = kit.send("p02", context_of(4, self.manifest), ZEROS)
        elif change == "size":
            message = kit.send("p02", context_of(4, manifest_of(4)), plain_values(np.zeros(4)))
        elif change == "ring":
            message, _ = Masked.frame(bytes(32), bytes(32), 3, 1, bytes(32), 5, 32)
        elif change == "noise":
            message = b"\xff" * 400
        else:
            collector = kit.collector(3, self.manifest, View(1, ("p00", "p02", "p03")))
        with pytest.raises(ProtocolError):
            collector.add(sender, message)
        assert sender not in collector._sums

    def test_a_view_of_too_few_has_no_collector(self):
        kit = start()
        with pytest.raises(ProtocolError, match="too small"):
            kit.collector(0, self.manifest, View(1, ("p00", "p01")))

    def test_a_late_vector_opens_nothing(self):
        """p03 dropped out; its vector for the abandoned round comes while the next one is under way."""
        kit = start()
        abandoned = context_of(0, self.manifest, MODEL)
        late = [kit.send(name, abandoned, ZEROS) for name in kit.names][3]
        view = View(1, kit.names[:3])
        kit.join(view)
        collector = fill(kit, dict.fromkeys(view.members, context_of(1, self.manifest, MODEL)), self.manifest, view)
        for sender in ("p03", "p02"):
            with pytest.raises(ProtocolError):
                collector.add(sender, late)
        assert collector.open().members == view.members

    def test_a_spoilt_round_cannot_be_repeated(self):
        kit = start()
        contexts = dict.fromkeys(kit.names, context_of(0, self.manifest, MODEL))
        contexts["p00"] = context_of(0, self.manifest, b"x" * 32)
        with pytest.raises(ProtocolError):
            fill(kit, contexts, self.manifest).open()
        for name in kit.names:
            with pytest.raises(ProtocolError, match=r"round 0 is over|already served|0 rounds|rounds of purpose"):
                kit.send(name, context_of(0, self.manifest, b"y" * 32), ZEROS)

    @pytest.mark.parametrize(
        "bad",
        [
            plain_values([np.nan, 0.0, 0.0]),
            plain_values([0.0, 0.0]),
            plain_values(np.zeros(3), weight=11),
            plain_values(np.zeros(3), weight=-1),
            plain_values([1, 2, 3]),
            plain_values([True, False, True]),
        ],
        ids=["nan", "short", "heavy", "negative", "integers", "booleans"],
    )
    def test_a_party_refuses_its_own_bad_input(self, bad):
        with pytest.raises(EncodingError, match="p00"):
            start().send("p00", context_of(0, self.manifest), bad)

    @pytest.mark.parametrize("model", [b"", b"m" * 31, "m" * 32, None], ids=repr)
    def test_a_model_is_named_by_a_hash(self, model):
        context = dataclasses.replace(context_of(0, self.manifest), model=model)
        with pytest.raises(ProtocolError, match="32 bytes"):
            start().send("p00", context, ZEROS)
