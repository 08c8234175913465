# SPDX-License-Identifier: Apache-2.0
"""A server without an ally that leaves out rounds of its choice, whose sums it has seen: it is an error, or it is told.

It forges no sum. Who chooses which rows count chooses what the model learns.
"""

from dataclasses import replace

import numpy as np
import pytest
from inline.federated import world

from fedray.errors import ProtocolError, ServerFault
from fedray.ml.nn.numpy import LinearRegression
from fedray.party.context import Reply
from fedray.party.door.egress import Kind
from fedray.party.records import Answer, KeyMessage, PastRound, RoundMessage
from fedray.party.rounds import contributor
from fedray.party.rounds.server import RoundServer
from fedray.party.training.trainer import Trainer
from fedray.protocol.opened import OpenedSum
from fedray.protocol.scheme import View
from fedray.security.aggregation import SecureAggregator

TARGETS = np.random.default_rng(5).normal(size=(80, 1))
MODES = ["abandon", "recover"]


def regression():
    return LinearRegression(features=4, learning_rate=0.05)


@pytest.fixture
def answers(monkeypatch):
    """Returns a function that lets the server answer messages of rounds otherwise than it should."""
    deliver = RoundServer.deliver

    def put(change):
        def told(self, sender, message):
            reply = deliver(self, sender, message)
            if not isinstance(message, RoundMessage):
                return reply
            return Reply(reply.kind, change(message, reply.value))

        monkeypatch.setattr(RoundServer, "deliver", told)

    return put


def seen(message, answer):
    """Returns whether the server has the sum of round 1."""
    return message.number == 1 and answer.verdict == "opened"


def fit(start, mode):
    fed = world(start, rows=(16, 16, 16, 16), y=TARGETS[:64], backend="numpy")
    model = fed.model(regression, aggregator=SecureAggregator(fed.server, fed.devices, on_dropout=mode))
    return model.fit(fed.x, fed.y, batch_size=4, verbose=0)  # four rounds


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ahead", [1, 3, 50])
def test_a_server_that_leaves_rounds_out_is_named(start, answers, mode, ahead):
    answers(lambda message, _: Answer("missed", number=message.number + ahead))
    expected = {"abandon": "nobody comes back who was too late", "recover": "and not what came of round 0"}[mode]
    with pytest.raises(ServerFault, match=f"server 'server' said .*{expected}"):
        fit(start, mode)


def test_a_round_left_out_of_the_middle_of_a_list_is_named(start, answers):
    answers(lambda *_: Answer("missed", number=3, missed=(PastRound(0, None), PastRound(2, None))))
    with pytest.raises(ServerFault, match="go on with round 2 and not what came of round 1"):
        fit(start, "recover")


@pytest.mark.parametrize("mode", MODES)
def test_a_session_that_the_server_wants_anew_after_it_has_the_sum_is_none(start, answers, mode):
    answers(lambda message, answer: Answer("renew", reason="why not") if seen(message, answer) else answer)
    with pytest.raises(ServerFault, match="server 'server' said 'renew' of round 1, to which this party has keys"):
        fit(start, mode)


@pytest.mark.parametrize("reason", ["no keys", ""])
def test_sessions_in_which_nothing_is_held_come_to_an_end(start, monkeypatch, reason):
    deliver = RoundServer.deliver

    def told(self, sender, message):
        if isinstance(message, KeyMessage):
            return Reply(Kind.SHAPE, Answer("renew", reason=reason))
        return deliver(self, sender, message)

    monkeypatch.setattr(RoundServer, "deliver", told)
    expected = "8 times in a row that a new session is needed .no keys" if reason else "'server' gave an answer that is"
    with pytest.raises(ProtocolError, match=expected):
        fit(start, "recover")


ODD = {
    "a number of a round": lambda _: Answer("missed", number=1.0),
    "a number that is a truth value": lambda _: Answer("missed", number=True),
    "a number of what was missed": lambda _: Answer("missed", number=2, missed=(PastRound(1.0, None),)),
    "nothing in what was missed": lambda _: Answer("missed", number=2, missed=(None,)),
    "no answer": lambda _: None,
    "a number": lambda _: 5,
    "a verdict that there is not": lambda answer: replace(answer, verdict="OPENED"),
    "a verdict of another type": lambda answer: replace(answer, verdict=1),
    "members": lambda answer: replace(answer, opened=OpenedSum(answer.opened.words, 7)),
    "members within members": lambda answer: replace(answer, opened=OpenedSum(answer.opened.words, (("alice",),))),
    "a sum": lambda answer: replace(answer, opened=View(0, ("alice",))),
    "a check": lambda answer: replace(answer, opened=OpenedSum(answer.opened.words, answer.opened.members, 1.5)),
    "what was missed": lambda answer: replace(answer, missed=(3,)),
    "a view": lambda _: Answer("abandoned", view=3),
    "members of a view": lambda _: Answer("abandoned", view=View(1, 3)),
    "a number of a view": lambda _: Answer("abandoned", view=View("1", ("alice", "bob", "carol"))),
    "a reason": lambda _: Answer("aborted", reason=5),
    "a request": lambda _: Answer("next", broadcast=5),
    "a stop": lambda answer: replace(answer, stop="no"),
}


QUICK = ("a number of a round", "no answer", "a verdict of another type", "members within members", "a view", "a stop")
"""One of each field; the others are `slow`, as a session takes longer than to look at an answer."""


@pytest.mark.parametrize("odd", [pytest.param(odd, marks=[pytest.mark.slow] * (odd not in QUICK)) for odd in ODD])
def test_an_answer_of_other_types_names_the_server(start, answers, odd):
    answers(lambda message, answer: ODD[odd](answer) if seen(message, answer) else answer)
    with pytest.raises(ServerFault, match="'server' gave an answer that is none"):
        fit(start, "recover")


@pytest.mark.parametrize(
    ("number", "missed"),
    [
        (-1, ()),
        (0, ()),
        (2, (PastRound(-1, None),)),
        (2, (PastRound(1, None), PastRound(0, None))),
        (2, (PastRound(0, None), PastRound(0, None))),
        (1, (PastRound(0, None), PastRound(1, None))),
    ],
)
def test_numbers_that_are_no_order_of_rounds_name_the_server(start, answers, number, missed):
    answers(lambda *_: Answer("missed", number=number, missed=missed))
    with pytest.raises(ServerFault, match=r"server 'server' said .* expected a round after 0 to go on with"):
        fit(start, "recover")


@pytest.mark.parametrize("mode", MODES)
def test_a_segment_that_ends_early_without_the_driver_s_word_is_an_error(start, answers, mode):
    answers(lambda message, answer: replace(answer, stop=message.number == 1))
    with pytest.raises(ServerFault, match="'server' has ended training after 2 of 4 rounds, and nobody has asked"):
        fit(start, mode)


@pytest.mark.parametrize("mode", MODES)
def test_a_round_that_is_lost_without_anybody_missing_is_in_the_history(start, answers, mode, caplog):
    answers(lambda message, answer: Answer("abandoned") if seen(message, answer) else answer)
    history = fit(start, mode)
    (told,) = [one for one in history.notices if "came to no sum" in one]
    assert told.startswith("epoch 1: round 1 came to no sum, and the server named nobody as missing who")
    assert told in caplog.text
    assert history.dropouts == []


def test_rounds_that_all_are_said_to_have_missed_are_in_the_history(start, answers):
    def told(message, answer):
        return Answer("missed", number=2, missed=(PastRound(1, None),)) if seen(message, answer) else answer

    answers(told)
    assert [one for one in fit(start, "recover").notices if one.startswith("epoch 1: round 1 came to no sum")]


@pytest.mark.parametrize("rounds", [4, 99], ids=["only training", "all"])
def test_metrics_that_come_to_no_sum_or_are_over_no_rows_are_in_the_history(start, answers, rounds):
    """Over no rows a framework says that the loss is 0.0."""

    def told(message, answer):
        return Answer("abandoned") if answer.verdict == "opened" and message.number < rounds else answer

    answers(told)
    history = fit(start, "recover")
    assert "epoch 1: no training metrics were opened over any rows, so there are none of this epoch" in history.notices
    assert "loss" not in history.global_history


def test_an_evaluation_of_whose_end_nothing_is_said_names_the_server(start, answers):
    fed = world(start, rows=(16, 16, 16, 16), y=TARGETS[:64], backend="numpy")
    model = fed.model(regression, aggregator=SecureAggregator(fed.server, fed.devices, on_dropout="recover"))
    answers(lambda message, _: Answer("missed", number=message.number + 1))
    with pytest.raises(ServerFault, match="too late for round 0, and not what came of it"):
        model.evaluate(fed.x, fed.y, verbose=0)


def test_a_party_that_goes_on_where_it_is_told_to_trains_on_the_rows_that_the_server_chooses(
    start, answers, monkeypatch
):
    """The broken variant: nobody looks at what came of the rounds in between."""

    def going_on(self, segment, until):
        ahead = until - segment.order.number - segment.again
        segment.done = min(max(segment.done, ahead), len(segment.order.spans))

    taken, take = [], Trainer._take
    monkeypatch.setattr(contributor, "check_missed", lambda *_, **__: None)
    monkeypatch.setattr(Trainer, "_pass_over", going_on)
    monkeypatch.setattr(Trainer, "_take", lambda self, *given: taken.append(self) or take(self, *given))
    answers(lambda message, answer: Answer("missed", number=message.number + 1) if message.number < 3 else answer)
    history = fit(start, "abandon")
    assert len(taken) == 4, "each party has learned from one round of four"
    assert history.dropouts == []
    assert not [one for one in history.notices if "no sum" in one]


def test_an_honest_run_says_nothing_of_lost_rounds(start):
    assert not [one for one in fit(start, "recover").notices if "no sum" in one]


def test_a_request_that_does_not_decode_names_the_server_and_no_rows(start, answers):
    answers(lambda _, answer: replace(answer, broadcast=b"\0") if answer.verdict == "next" else answer)
    with pytest.raises(ProtocolError, match="server 'server' asked what is no message of round 0") as caught:
        fit(start, "recover")
    assert type(caught.value) is ServerFault
    assert "rows" not in str(caught.value)
