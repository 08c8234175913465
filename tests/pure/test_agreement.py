# SPDX-License-Identifier: Apache-2.0
"""What parties say of their models has to be one thing; what a metric adds up to, too."""

from dataclasses import replace

import pytest

from fedray.backends.backend import ModelFacts
from fedray.backends.spec import Param, ParamSpec
from fedray.errors import PlanError
from fedray.metrics import Word
from fedray.ml.nn.agreement import agreed, apart, differ, say_doubts, split
from fedray.party.records import SumSet
from fedray.party.training.model_rounds import Report

SPEC = ParamSpec((Param("kernel", (2,), "float32", True, "shared"), Param("scale", (1,), "float32", False, "frozen")))
LOSS = Word("loss/0", whole=False)
FACTS = ModelFacts(SPEC, (LOSS,), (LOSS,), {}, {"scale": "aa"})


def test_a_metric_stays_apart_everywhere_if_it_does_anywhere():
    at_bob = replace(FACTS, apart={"own": "it does not add up"})
    assert not differ([FACTS, FACTS])
    assert differ([FACTS, at_bob])
    assert apart([FACTS, at_bob, FACTS]) == {"own": "it does not add up"}
    in_other_words = replace(FACTS, apart={"own": "made-up rows did not show it"})
    assert not differ([at_bob, in_other_words])
    assert agreed({"alice": at_bob, "bob": in_other_words}) is at_bob


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"frozen": {"scale": "bb"}}, "frozen tensor 'scale' has other values at party 'bob' than at party 'alice'"),
        ({"train_words": (LOSS, LOSS)}, "party 'bob' built another model than party 'alice'"),
        ({"spec": ParamSpec(SPEC.params[:1])}, "party 'bob' built another model than party 'alice'"),
    ],
)
def test_other_models_are_refused(other, message):
    with pytest.raises(PlanError, match=message):
        agreed({"alice": FACTS, "bob": replace(FACTS, **other)})


def test_it_is_said_once_of_each_metric_and_doubt(caplog):
    said: set[str] = set()
    say_doubts(replace(FACTS, apart={"own": "why"}, doubts=("a doubt",)), said)
    say_doubts(replace(FACTS, apart={"own": "why", "other": "why too"}, doubts=("a doubt",)), said)
    assert [record.args[0] for record in caplog.records] == ["a doubt", "own", "other"]
    assert "has no value over all parties" in caplog.messages[1]


REPORT = Report((), (), sets=(SumSet(0, 3, ("alice", "bob", "carol"), True),), model=b"m", sums=b"s")


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"sets": (SumSet(0, 3, ("bob", "carol"), True),)}, "whose inputs were summed"),
        ({"model": b"x"}, "the model that follows"),
        ({"sums": b""}, "the joint metrics"),
    ],
)
def test_who_came_to_another_result_is_named(other, what):
    alike = {"alice": REPORT, "bob": REPORT, "carol": REPORT}
    assert split(alike) == ("", ())
    assert split({"alice": replace(REPORT, done=7)}) == ("", ())
    text, agree = split(alike | {"bob": replace(REPORT, **other)})
    assert text.startswith(f"the parties differ on {what}: 'bob' came to another result than 'alice', 'carol'. Either")
    assert agree == ("alice", "carol")


def test_of_two_nobody_can_tell_who_is_right():
    text, agree = split({"alice": REPORT, "bob": replace(REPORT, model=b"x")})
    assert "'bob' came to another result than 'alice' (which of them is right, nobody can tell)" in text
    assert agree == ("alice",)
