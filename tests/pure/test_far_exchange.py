# SPDX-License-Identifier: Apache-2.0
"""Messages between nodes over connections that are cut at any byte: each arrives once and whole, as does its answer."""

import contextlib
import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedray.errors import EncodingError
from fedray.runtime.far import stream
from fedray.runtime.far.carried import STEPS, Carried, Leg
from fedray.runtime.far.inbox import MOST_OPEN, Handled, Inbox, Serving
from fedray.runtime.far.redial import REFUSED_SECONDS, SILENT_SECONDS, UNREACHED_SECONDS, Redial, Trouble

BODIES = st.lists(st.binary(max_size=40), min_size=1, max_size=3)


class World:
    """A caller and the other end, without sockets: bytes go across one by one, and a connection ends where it is told.

    Args:
        answer: Message -> answer.
    """

    def __init__(self, answer: Callable[[list[bytes]], list[bytes]]) -> None:
        self.inbox, self.answer = Inbox(), answer
        self.handed_on: list[list[bytes]] = []
        self.carried = 0

    def connect(self, caller: Carried, floor: int, upto: int, *, answers: bool = True) -> Serving:
        """Carries at most `upto` bytes in either direction, and returns the other end's connection."""
        serving = Serving(self.inbox, "alice")
        caller.connected(floor)
        there, back = bytearray(), bytearray()
        for _ in range(upto):
            while caller.stage is not Leg.DONE and (out := caller.next_out()):
                there += out
                caller.sent(len(out))
            while out := serving.next_out():
                back += out
                serving.sent(len(out))
            if serving.works and answers:
                self.work(serving)
            elif there:
                serving.next_in()[:1] = bytes(there[:1])
                serving.received(1)
                del there[:1]
            elif back:
                caller.next_in()[:1] = bytes(back[:1])
                caller.received(1)
                del back[:1]
            else:
                break
            self.carried += 1
            if caller.stage is Leg.DONE:
                break
        return serving

    def work(self, serving: Serving) -> None:
        held, serving.works = serving.held, False
        assert held is not None
        message = [bytes(part) for part in held.take()]
        self.handed_on.append(message)
        held.answered(self.answer(message))


def feed(end: Serving | Carried, content: bytes | memoryview) -> None:
    """Gives one end bytes, as long as it takes any."""
    rest = memoryview(content)
    while rest and not (end.idle if isinstance(end, Serving) else end.stage is Leg.DONE):
        space = end.next_in()
        count = min(len(space), len(rest))
        space[:count] = rest[:count]
        end.received(count)
        rest = rest[count:]


@settings(max_examples=60, deadline=None)
@given(BODIES, BODIES, st.lists(st.integers(0, 90), max_size=6))
def test_wherever_connections_are_cut_a_message_is_handed_on_once_and_answered(message, answer, cuts):
    world = World(lambda _: answer)
    caller = Carried(7, message)
    for upto in [*cuts, 10**6]:
        serving = world.connect(caller, 7, upto)
        if caller.stage is Leg.DONE:
            break
        if serving.works:  # the thread of a connection that is gone answers all the same
            world.work(serving)
        caller.cut()
    assert caller.stage is Leg.DONE
    assert [bytes(part) for part in caller.answer] == answer
    assert world.handed_on == [message]
    world.inbox.over("alice", 7, 8)
    assert len(world.inbox) == 0, "nothing is kept of what is over"


@pytest.mark.parametrize("once", [0, 1, 30, 61, 62, 63, 90, 104, 120])
def test_what_has_come_is_not_sent_again(once):
    body = [b"x" * 20, b"y" * 30]
    world = World(lambda _: [b"z" * 50])
    caller = Carried(1, body)
    world.connect(caller, 1, once)
    caller.cut()
    world.connect(caller, 1, 10**6)
    assert caller.stage is Leg.DONE
    whole = World(lambda _: [b"z" * 50])
    whole.connect(Carried(1, body), 1, 10**6)
    assert world.carried <= whole.carried + stream.ORDER.size + 2 * stream.WORD.size + 1


def test_every_pair_of_cuts_of_a_short_exchange():
    for first, second in itertools.product(range(0, 110, 3), range(0, 110, 7)):
        world = World(lambda message: message)
        caller = Carried(1, [b"ab", b"", b"c" * 5])
        for upto in (first, second, 10**6):
            serving = world.connect(caller, 1, upto)
            if caller.stage is Leg.DONE:
                break
            if serving.works:
                world.work(serving)
            caller.cut()
        assert (caller.stage, len(world.handed_on)) == (Leg.DONE, 1), (first, second)


def test_a_long_message_is_receipted_and_let_go_before_it_is_answered():
    world = World(lambda _: [b"ok"])
    caller = Carried(1, [b"", np.zeros(stream.LONG, np.uint8).data])
    serving = Serving(world.inbox, "alice")
    caller.connected(1)
    pieces = []
    while out := caller.next_out():
        pieces.append(len(out))
        feed(serving, out)
        caller.sent(len(out))
    assert max(pieces) <= stream.PIECE
    receipt = serving.next_out()
    caller.next_in()[:] = receipt
    caller.received(len(receipt))
    serving.sent(len(receipt))
    assert not caller._source.kept
    assert serving.works
    caller.cut()  # and goes on from there all the same
    world.work(serving)
    world.connect(caller, 1, 10**6)
    assert caller.stage is Leg.DONE


def test_a_message_that_was_sent_before_is_not_handed_on_again():
    world = World(lambda message: message)
    caller = Carried(1, [b"pay"])
    serving = world.connect(caller, 1, 10**6)
    replayed = Carried(1, [b"pay"])
    with pytest.raises(EncodingError, match="has sent message 1 before"):
        world.connect(replayed, 1, 10**6)
    order = caller.done(2)
    serving.next_in()[:] = order
    serving.received(len(order))
    for again in (False, True):
        late = Carried(1, [b"pay"])
        late._again = again
        with pytest.raises(EncodingError, match="has had the answer to message 1"):
            world.connect(late, 1, 10**6)
    assert world.handed_on == [[b"pay"]]


def test_an_inbox_that_forgets_what_is_over_hands_a_replay_on():
    world = World(lambda message: message)
    world.connect(Carried(1, [b"pay"]), 1, 10**6)
    world.inbox._entries.clear()  # the broken variant: it neither keeps exchanges nor what is over
    world.connect(Carried(1, [b"pay"]), 1, 10**6)
    assert world.handed_on == [[b"pay"], [b"pay"]]


def test_a_connection_that_was_taken_over_carries_nothing_any_more():
    hung_up: list[int] = []
    inbox = Inbox()
    first = Serving(inbox, "alice", lambda: hung_up.append(1))
    second = Serving(inbox, "alice")
    begin = stream.ORDER.pack(stream.CALL, 1, 1, 0)
    first.next_in()[:] = begin
    first.received(len(begin))
    first.reads = True
    again = stream.ORDER.pack(stream.AGAIN, 1, 1, 0)
    second.next_in()[:] = again
    second.received(len(again))
    assert (first.stale, second.stale, hung_up) == (True, False, [1])
    assert second.held_up, "the first one still writes to where the message goes"
    first.reads = False
    assert not second.held_up
    with pytest.raises(EncodingError, match="taken over"):
        first.received(1)


def test_what_is_claimed_is_refused_before_memory_is_taken():
    head = stream.ORDER.pack(stream.CALL, 1, 1, 0)
    for claimed, said in (
        ((1 << 30).to_bytes(4, "big"), "1 to 1024 parts"),
        (bytes(4), "1 to 1024 parts"),
        ((1).to_bytes(4, "big") + (1 << 40).to_bytes(8, "big"), "at most 8589934592 bytes"),
    ):
        with pytest.raises(EncodingError, match=said):
            feed(Serving(Inbox(), "alice"), head + claimed)


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_no_bytes_do_anything_but_come_in_or_raise(content):
    for begin in (b"", stream.ORDER.pack(stream.CALL, 1, 1, 0), stream.ORDER.pack(stream.AGAIN, 1, 1, 0)):
        serving, rest = Serving(Inbox(), "alice"), begin + content
        caller = Carried(1, [b"x"])
        caller.connected(1)
        while out := caller.next_out():
            caller.sent(len(out))
        for end in (serving, caller):
            with contextlib.suppress(EncodingError):
                feed(end, rest)


def test_a_caller_may_not_fill_the_memory_of_another():
    inbox = Inbox()
    for number in range(MOST_OPEN):
        inbox.enter("alice", number, Serving(inbox, "alice"), again=False)
    with pytest.raises(EncodingError, match="under way"):
        inbox.enter("alice", MOST_OPEN, Serving(inbox, "alice"), again=False)
    inbox.enter("bob", 1, Serving(inbox, "bob"), again=False)
    inbox.raised("alice", MOST_OPEN)
    assert len(inbox) == 1


@pytest.mark.parametrize("stage", list(Leg))
def test_a_step_that_the_table_does_not_have_is_refused_and_changes_nothing(stage):
    for to in Leg:
        caller = Carried(1, [b"x"])
        caller.stage = stage
        if to in STEPS[stage]:
            caller._step(to)
            assert caller.stage is to
        else:
            with pytest.raises(EncodingError):
                caller._step(to)
            assert caller.stage is stage


def test_handled_has_three_steps():
    inbox = Inbox()
    held = inbox.enter("alice", 1, Serving(inbox, "alice"), again=False)
    assert held.handled is Handled.COMING


@given(st.lists(st.tuples(st.sampled_from(list(Trouble)), st.floats(0, 40)), max_size=30), st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_party_is_given_up_after_its_time_and_no_sooner(tries, reached):
    redial, now, silent, refused = Redial(reached), 0.0, None, None
    for trouble, step in tries:
        now += step
        silent = now if silent is None else silent
        refused = None if trouble is not Trouble.REFUSED else (now if refused is None else refused)
        given_up = now - silent >= (SILENT_SECONDS if reached else UNREACHED_SECONDS)
        given_up |= refused is not None and now - refused >= REFUSED_SECONDS
        wait = redial.failed(trouble, now)
        assert (wait is None) == given_up
        if given_up:
            return
        assert 0 <= wait <= 1


def test_whoever_answers_is_not_held_to_what_was_before():
    redial = Redial(False)
    assert redial.failed(Trouble.REFUSED, 0.0) == 0.0
    redial.heard()
    assert redial.failed(Trouble.REFUSED, 100.0) == 0.05, "and not without a pause, whoever says a word and hangs up"
    assert redial.failed(Trouble.SILENT, 100.0 + UNREACHED_SECONDS) is not None
