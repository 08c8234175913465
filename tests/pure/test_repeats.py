# SPDX-License-Identifier: Apache-2.0
"""A server that asks for one input once more: over the same parties it gets it, and over others nothing.

The last tests take each rule away in turn, and show what it would have told.
"""

import secrets
from dataclasses import replace

import numpy as np
import pytest
from pure import masking_kit, recovery_kit, sharing_kit

from fedray.errors import ProtocolError
from fedray.protocol.manifest import Manifest, Tensor
from fedray.protocol.recovery.reuse_rules import InputRules
from fedray.protocol.repeats import LastInput
from fedray.protocol.scales import MOST_REPEATS
from fedray.protocol.scheme import Contribution, RoundContext, View
from fedray.protocol.sharing import ShareAdder
from fedray.protocol.sharing.sealing import HEADER_BYTES

MANIFEST = Manifest((Tensor("w", (2,), "float64"), Tensor("b", (1,), "float64")), weighted=False, counted=True)
NARROW, WIDE = (0, 0), (34, 34)
VALUES = {"p00": [1.0, -2.0, 3.0], "p01": [5.0, 0.5, 0.25], "p02": [100.0, 1.0, -1.0], "p03": [7.0, 7.0, 7.0]}


def context(number, repeats=None, reaches=NARROW, model=b"m" * 32, settings=b"s"):
    return RoundContext(number, model, settings, MANIFEST.reaching(reaches), "train", repeats)


def inputs(names):
    return {name: Contribution(np.array(VALUES[name]), 1, np.empty(0)) for name in names}


class Masked:
    """A session of masking in which everybody has served a round whose values did not fit."""

    def __init__(self, parties=4):
        self.kit = masking_kit.session(parties)
        self.inputs = inputs(self.kit.names)
        self.first = self.kit.round(context(0), self.inputs)

    def again(self, number=1, view=None, **changes):
        return self.kit.round(replace(context(number, number - 1, WIDE), **changes), self.inputs, view)


@pytest.mark.parametrize("scheme", ["plain", "masking"])
def test_the_last_input_is_summed_again_over_the_same_view(scheme):
    kit = masking_kit.session(3, scheme)
    given = inputs(kit.names)
    first = kit.round(context(0), given)
    assert [extent.saturated for extent in first.extents] == [3, 1]
    assert kit.round(context(1, 0, WIDE), given).values.tolist() == [106.0, -0.5, 2.25]


def test_a_repeat_is_no_further_use_of_the_model_and_anything_else_is():
    masked = Masked()
    for number in range(1, MOST_REPEATS + 1):
        assert masked.again(number).values.tolist() == [113.0, 6.5, 9.25]
    with pytest.raises(ProtocolError, match=f"to repeat round {MOST_REPEATS} after {MOST_REPEATS} repeats already"):
        masked.again(MOST_REPEATS + 1)
    with pytest.raises(ProtocolError, match="already served 1 rounds"):
        masked.kit.send("p00", context(20), masked.inputs["p00"])


LIES = {
    "a round that was another's": ({"repeats": 5}, "not the last round that this party sent"),
    "an earlier round": ({"repeats": 0, "number": 2}, "not the last round"),
    "another model": ({"model": b"x" * 32}, "another model, other settings or other tensors"),
    "other settings": ({"settings": b"learning rate 0"}, "another model, other settings or other tensors"),
    "another purpose": ({"purpose": "evaluate"}, "another model, other settings or other tensors"),
    "other tensors": (
        {"manifest": Manifest((Tensor("w", (3,), "float64", 2.0**34),), weighted=False, counted=True)},
        "another model, other settings or other tensors",
    ),
    "counts left out": ({"manifest": replace(MANIFEST, counted=False)}, "other tensors"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_round_that_is_no_repeat_of_the_last_one_is_refused(lie):
    changes, text = LIES[lie]
    masked = Masked()
    masked.again(1)
    with pytest.raises(ProtocolError, match=text):
        masked.kit.send("p00", replace(context(2, 1, WIDE), **changes), masked.inputs["p00"])


def test_the_first_round_of_a_session_repeats_nothing():
    masked = Masked()
    kit = masked.kit.again()
    with pytest.raises(ProtocolError, match="not the last round that this party sent"):
        kit.send("p00", context(1, 0, WIDE), masked.inputs["p00"])


def test_a_repeat_has_the_very_same_input():
    masked = Masked()
    given = masked.inputs["p00"]
    for other in (
        replace(given, values=given.values.copy()),
        replace(given, weight=0),
        replace(given, metrics=np.ones(1)),
    ):
        with pytest.raises(ProtocolError, match="freshly computed data belongs in a round of its own"):
            masked.kit.send("p00", context(1, 0, WIDE), other)


def test_part_a_a_view_that_shrinks_gets_no_repeat():
    """The attack: the server has opened a sum over four, says that p03 is gone, and asks the others once more."""
    masked = Masked()
    smaller = View(1, masked.kit.names[:3])
    masked.kit.join(smaller)
    for name in smaller.members:
        with pytest.raises(ProtocolError, match="over another set of parties: the two sums could differ by one input"):
            masked.kit.send(name, context(1, 0, WIDE), masked.inputs[name])


def test_part_a_a_repeat_without_one_party_is_not_opened():
    masked = Masked()
    collector = masked.kit.collector(1, context(1, 0, WIDE).manifest)
    for name in masked.kit.names[:3]:
        collector.add(name, masked.kit.send(name, context(1, 0, WIDE), masked.inputs[name]))
    with pytest.raises(ProtocolError, match="no vector yet"):
        collector.open()


@pytest.mark.parametrize("other", [{"reaches": (34, 33)}, {"repeats": None, "model": b"y" * 32}, {"settings": b"t"}])
def test_parties_that_were_told_different_things_do_not_sum(other):
    """As where one is told that its round was opened and the others are asked again, or one gets another reach."""
    kit = masking_kit.session(3)
    given = inputs(kit.names)
    kit.round(context(0), given)
    told = {"number": 1, "repeats": 0, "reaches": WIDE}
    collector = kit.collector(1, context(**told).manifest)
    if "settings" in other:  # which is no repeat, so that it is refused at home already
        with pytest.raises(ProtocolError, match="other settings"):
            kit.send("p00", context(**told | other), given["p00"])
        return
    for name in kit.names:
        collector.add(name, kit.send(name, context(**told | (other if name == "p00" else {})), given[name]))
    with pytest.raises(ProtocolError, match="p00 took part with another model, settings or history"):
        collector.open()


class Recovered:
    """A session of recovery in which a round was opened over everybody, and one for whose repeat a party is missing."""

    def __init__(self):
        self.stage = recovery_kit.Stage()
        self.model, self.inputs = secrets.token_bytes(32), recovery_kit.inputs()

    def context(self, number, repeats=None):
        return replace(recovery_kit.context(number, self.model), repeats=repeats)

    def sum(self, number, repeats=None, but=""):
        given = {name: one for name, one in self.inputs.items() if name != but}
        return self.stage.rehearsal.sum(self.context(number, repeats), given)


def test_part_b_the_last_input_is_summed_again_over_the_same_survivors():
    recovered = Recovered()
    assert (
        recovered.sum(0).values.tolist() == recovered.sum(1, 0).values.tolist() == recovered.sum(2, 1).values.tolist()
    )
    recovered.inputs = {name: recovery_kit.contribution(9) for name in recovered.inputs}
    with pytest.raises(ProtocolError, match="already served 1 rounds"):
        recovered.sum(3)


def test_part_b_survivors_do_not_sign_for_a_repeat_over_fewer():
    recovered = Recovered()
    recovered.sum(0)
    with pytest.raises(ProtocolError, match="the difference would show single inputs"):
        recovered.sum(1, 0, but=recovery_kit.ALL[3])


def test_part_b_nothing_is_repeated_that_this_party_has_not_seen_to_open():
    recovered = Recovered()
    shield, given = recovered.stage.shields["p0000"], recovered.inputs["p0000"]
    shield.protect(recovered.context(0), given)
    with pytest.raises(ProtocolError, match="not seen to open"):
        shield.protect(recovered.context(1, 0), given)


class Shared:
    """A session of sharing in which a round was opened over all owners."""

    def __init__(self):
        self.kit = sharing_kit.session(4, 3)
        self.kit.expect(MANIFEST)
        self.inputs = inputs(self.kit.owners)
        self.kit.round(context(0), self.inputs)

    def again(self, members, number=1):
        given = {name: self.inputs[name] for name in members}
        return self.kit.round(context(number, number - 1, WIDE), given, members)


def test_part_c_the_last_input_is_summed_again_over_the_same_owners():
    shared = Shared()
    for number in (1, 2):
        assert shared.again(shared.kit.owners, number).values.tolist() == [113.0, 6.5, 9.25]
    with pytest.raises(ProtocolError, match="already served 1 rounds"):
        shared.kit.shields["p00"].protect(context(3), shared.inputs["p00"])


def test_part_c_no_compute_party_signs_for_a_repeat_over_fewer():
    shared = Shared()
    for name in shared.kit.owners:
        shared.kit.send(name, context(1, 0, WIDE), shared.inputs[name])
    for adder in shared.kit.adders.values():
        with pytest.raises(ProtocolError, match="round 1 has the inputs of round 0 once more, over"):
            adder.sign(shared.kit.owners[:3])


def test_part_c_a_share_says_what_it_repeats_and_cannot_say_it_later():
    """It is in what the owner has authenticated, and owners that disagree are in different sums."""
    shared = Shared()
    messages = shared.kit.shields["p00"].protect(context(1, 0, WIDE), shared.inputs["p00"])
    name, message = next(iter(messages.items()))
    altered = bytearray(bytes(message))
    assert altered[HEADER_BYTES - 1] == 1  # the last field of the header is 1 + the round
    altered[HEADER_BYTES - 1] = 0
    with pytest.raises(ProtocolError, match="not from its owner, or was altered"):
        shared.kit.adders[name].add("p00", bytes(altered))
    assert shared.kit.adders[name].add("p00", message) == 1


# Each rule taken away: what the server would then have learned.


def test_without_the_rule_a_smaller_view_shows_the_missing_input(monkeypatch):
    monkeypatch.setattr(LastInput, "is_repeat", lambda *_: True)
    masked = Masked()
    whole = masked.again(1).values
    smaller = View(1, masked.kit.names[:3])
    masked.kit.join(smaller)
    masked.inputs.pop("p03")
    fewer = masked.again(2, smaller).values
    assert (whole - fewer).tolist() == VALUES["p03"]


def test_without_the_rule_fewer_survivors_show_the_missing_input(monkeypatch):
    monkeypatch.setattr(InputRules, "approve", lambda *_: None)
    recovered = Recovered()
    whole, fewer = recovered.sum(0).values * 4, recovered.sum(1, 0, but=recovery_kit.ALL[3]).values * 3
    assert whole - fewer == pytest.approx(recovered.inputs[recovery_kit.ALL[3]].values, abs=1e-6)


def test_without_the_rule_fewer_owners_show_the_missing_input(monkeypatch):
    monkeypatch.setattr(ShareAdder, "_check_repeat", lambda *_: None)
    shared = Shared()
    whole, fewer = shared.again(shared.kit.owners).values, shared.again(shared.kit.owners[:3], 2).values
    assert (whole - fewer).tolist() == VALUES["p03"]


def test_without_the_rule_a_model_could_be_used_as_often_as_the_server_likes(monkeypatch):
    """The memory counts rounds; what calls itself a repeat is not counted, and must be one."""
    monkeypatch.setattr(LastInput, "is_repeat", lambda _, context, *__: context.repeats is not None)
    masked = Masked()
    masked.inputs = {name: replace(one, values=2 * one.values) for name, one in masked.inputs.items()}
    assert masked.again(1).values.tolist() == [226.0, 13.0, 18.5]
