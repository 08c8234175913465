# SPDX-License-Identifier: Apache-2.0
"""The notation of devices, on every transport."""

import copy
import gc
import pickle
import time
from collections import namedtuple

import cloudpickle
import numpy as np
import pytest

import fedray as sf
from fedray.errors import DeviceMismatch, PartyError, PartyTimeout, PlanError


@pytest.fixture(scope="module")
def alice(shared):
    return sf.PYU("alice")


@pytest.fixture(scope="module")
def bob(shared):
    return sf.PYU("bob")


@pytest.fixture
def gate(tmp_path):
    """Returns a file, and a function that waits for it in a party; it gives up after twenty seconds."""
    opened = tmp_path / "open"

    def passed():
        for _ in range(2000):
            if opened.exists():
                return "done"
            time.sleep(0.01)
        return "never opened"

    return opened, passed


def test_a_call_returns_at_once_and_the_value_stays(alice, gate):
    opened, passed = gate
    held = alice(passed)()
    opened.touch()
    assert isinstance(held, sf.PYUObject)
    assert held.device == alice
    assert "done" not in repr(held)
    assert sf.reveal(held) == "done"


def test_arguments_by_position_and_name(alice):
    assert sf.reveal(alice(lambda a, *, b=2: (a, b))(1, b=3)) == (1, 3)


def test_arguments_may_nest_handles_in_lists_tuples_and_dicts(alice):
    x, y = alice(abs)(-1), alice(abs)(-2)
    nested = {"a": [x, (y, {"b": x})], "c": 3}
    assert sf.reveal(alice(lambda arg, *, key: [arg, key])(nested, key=[y])) == [{"a": [1, (2, {"b": 1})], "c": 3}, [2]]


def test_containers_keep_their_types(alice):
    Pair = namedtuple("Pair", "left right")
    x = alice(abs)(-1)
    kinds = alice(lambda *a: [type(v).__name__ for v in a])([x], (x,), {"k": x}, Pair(x, 2), {1}, np.ones(2))
    assert sf.reveal(kinds) == ["list", "tuple", "dict", "Pair", "set", "ndarray"]
    assert sf.reveal(Pair(x, [x])) == Pair(1, [1])


@pytest.mark.parametrize("function", [abs, np.abs, lambda _: 1, float, str.upper, bool])
def test_any_callable_may_run_in_a_party(alice, function):
    sf.wait(alice(function)("a" if function is str.upper else -1))


def test_several_returns(alice):
    first, second = alice(lambda: (1, [2, 3]), num_returns=2)()
    assert sf.reveal((second, first)) == ([2, 3], 1)
    for function, found in ((lambda: (1, 2, 3), "3 values"), (lambda: 7, "one int")):
        pair = alice(function, num_returns=2)()
        for each in pair:
            with pytest.raises(PlanError, match=f"num_returns=2, but the function returned {found}"):
                sf.reveal(each)
    for wrong in (0, -1, 1.5, True, "2"):
        with pytest.raises(PlanError, match="num_returns"):
            alice(abs, num_returns=wrong)


def test_what_is_no_function_is_refused(alice):
    with pytest.raises(PlanError, match=r"alice.*expected a function, found int"):
        alice(3)


def test_a_value_of_another_party_is_refused_with_the_remedy(alice, bob):
    x, y = alice(abs)(-1), bob(abs)(-2)
    for use in (lambda: alice(max)(x, y), lambda: alice(max)([x, {"k": (y,)}]), lambda: alice(max)(x, default=[y])):
        with pytest.raises(DeviceMismatch, match=r"max runs at alice.*held by bob; move it with x\.to\(alice\)"):
            use()
    assert sf.reveal(alice(max)(x, y.to(alice))) == 2


def test_moving(alice, bob):
    x = alice(np.arange)(3)
    there = x.to(bob)
    assert there.device == bob
    assert x.to(alice) is x
    back = sf.to(alice, there)
    assert sf.reveal([x, there, back])[2].tolist() == [0, 1, 2]
    assert sf.reveal(sf.to(bob, [x, {"k": (there, 5)}]))[1]["k"][1] == 5
    assert sf.reveal(sf.to(bob, "plain")) == "plain"
    assert sf.to(bob, {"k": x}).device == bob


def test_moving_copies(alice, bob):
    x = alice(np.zeros)(3)
    there = x.to(bob)

    def fill(a):
        a += 1
        return a

    assert sf.reveal(bob(fill)(there)).tolist() == [1, 1, 1]
    assert sf.reveal(x).tolist() == [0, 0, 0]


def test_moving_to_what_is_no_party_is_refused(alice):
    class Shelf:
        def place(self, data):
            return data

        receive = place

    x = alice(abs)(-1)
    for wrong in ("bob", None, 3, sf.PYU, Shelf()):
        with pytest.raises(PlanError, match="expected a PYU"):
            x.to(wrong)
        with pytest.raises(PlanError, match="expected a PYU"):
            sf.to(wrong, x)


def test_reveal_keeps_the_nesting_and_what_is_no_handle(alice, bob):
    x, y = alice(abs)(-1), bob(abs)(-2)
    assert sf.reveal({"a": [x, y, (x, "kept")], "b": None}) == {"a": [1, 2, (1, "kept")], "b": None}
    assert sf.reveal([]) == []
    assert sf.reveal(3) == 3


def test_wait_waits_and_gives_up_in_time(alice, gate, tmp_path):
    opened, passed = gate
    done = tmp_path / "done"
    slow = alice(lambda: passed() == "done" and done.touch())()
    with pytest.raises(PartyTimeout, match="alice"):
        sf.wait([slow], timeout=0.1)
    assert not done.exists()
    opened.touch()
    sf.wait({"k": [slow, 3]})
    assert done.exists()
    sf.wait([])


def test_an_error_names_party_function_and_shows_the_remote_line(bob):
    def divide(a, b):
        return a / b

    with pytest.raises(PartyError, match="party 'bob': ZeroDivisionError in divide: division by zero") as caught:
        sf.reveal(bob(divide)(1, 0))
    error = caught.value
    assert (error.party, error.function, error.remote_type) == ("bob", "divide", "ZeroDivisionError")
    assert "return a / b" in error.remote_traceback
    assert "return a / b" in str(error)


def test_an_error_travels_through_the_calls_that_depend_on_it(alice, bob):
    def first():
        raise KeyError("origin")

    def second(v):
        raise AssertionError("never runs")

    failed = bob(first)()
    later = alice(second)(bob(second)(failed).to(alice))
    for use in (lambda: sf.reveal(later), lambda: sf.wait([alice(abs)(-1), later]), lambda: sf.reveal([later])):
        with pytest.raises(PartyError, match="KeyError in first") as caught:
            use()
        assert (caught.value.party, caught.value.function) == ("bob", "first")
    assert sf.reveal(alice(abs)(-1)) == 1


def test_an_error_that_cannot_print_itself(alice):
    def explode():
        class MuteError(Exception):
            def __str__(self):
                raise RuntimeError("mute")

        raise MuteError

    with pytest.raises(PartyError, match=r"MuteError in .*no printable message"):
        sf.reveal(alice(explode)())


def test_our_own_errors_keep_their_class(alice):
    def check():
        from fedray.errors import DataError

        raise DataError("column 'age' is missing")

    with pytest.raises(sf.errors.DataError, match="party 'alice': column 'age' is missing"):
        sf.reveal(alice(check)())


def test_handles_are_not_made_by_hand_nor_pickled(alice):
    x = alice(abs)(-1)
    with pytest.raises(PlanError, match="not by hand"):
        sf.PYUObject(alice, "key")
    for dump in (pickle.dumps, cloudpickle.dumps):
        with pytest.raises(PlanError, match="cannot be pickled"):
            dump(x)
    for use in (lambda: alice(lambda: x)(), lambda: alice(len)({x}), lambda: sf.to(alice, {1: {x}})):
        with pytest.raises(PlanError, match="pass it as an argument"):
            use()
    assert copy.copy(x) is x
    assert copy.deepcopy([x])[0] is x


def test_arguments_that_cannot_travel_are_refused_at_the_call(alice):
    import threading

    with pytest.raises(PlanError, match="cannot be pickled"):
        alice(len)(threading.Lock())


def test_parties_compare_by_name(alice, bob):
    assert sf.PYU("alice") == alice != bob
    assert {sf.PYU("alice"): 1}[alice] == 1
    assert (str(alice), repr(alice)) == ("alice", "PYU(name='alice')")
    with pytest.raises(PlanError, match=r"unknown party 'zoe'; this session has 'alice', 'bob', 'charlie'"):
        sf.PYU("zoe")
    for wrong in ("", None, 3):
        with pytest.raises(PlanError, match="expected the name of a party"):
            sf.PYU(wrong)


def counter():
    class Counter:
        def __init__(self, start, step=1):
            self.count, self.step = start, step

        def increment(self, times=1):
            self.count += self.step * times
            return self.count

        def both(self):
            return self.count, self.step

        def fail(self):
            raise ValueError("as asked")

        def _hidden(self):
            return 1

    return Counter


def test_a_proxy_keeps_its_state_in_the_party(alice, bob):
    counters = sf.proxy(counter())
    here, there = counters(10, step=2, device=alice), counters(alice(abs)(-1).to(bob), device=bob)
    assert sf.reveal([here.increment(), here.increment(3), there.increment()]) == [12, 18, 2]
    count, step = here.both.options(num_returns=2)()
    assert sf.reveal((count, step)) == (18, 2)
    assert sf.reveal(here.increment(times=alice(abs)(-1))) == 20
    assert here.device == alice


def test_a_proxys_mistakes(alice, bob):
    counters = sf.proxy(counter())
    it = counters(0, device=alice)
    with pytest.raises(PartyError, match=r"ValueError in Counter\.fail: as asked"):
        sf.reveal(it.fail())
    assert sf.reveal(it.increment()) == 1
    assert sf.reveal(copy.copy(it).increment()) == 2
    with pytest.raises(DeviceMismatch, match=r"Counter\.increment runs at alice.*held by bob"):
        it.increment(bob(abs)(-1))
    for name in ("nothing", "_hidden", "__getstate__x"):
        with pytest.raises(AttributeError, match="no public method"):
            getattr(it, name)
    with pytest.raises(PlanError, match=r"expected device=PYU"):
        counters(0, device="alice")
    with pytest.raises(PlanError, match="expected a class"):
        sf.proxy(abs)
    broken = counters(device=alice)
    with pytest.raises(PartyError, match="TypeError in Counter"):
        sf.reveal(broken.increment())


def test_dropping_the_last_handle_frees_the_value(alice, shared):
    class Watched:
        alive = 0

        def __init__(self):
            type(self).alive += 1

        def __del__(self):
            type(self).alive -= 1

        def count(self):
            return type(self).alive

    class Keeper:
        def __init__(self, cls):
            self.cls = cls

        def make(self):
            return self.cls()

        def alive(self):
            return self.cls.alive

    keeper = sf.proxy(Keeper)(Watched, device=alice)
    held = [keeper.make() for _ in range(5)]
    assert sf.reveal(keeper.alive()) == 5
    again = held[0]
    del held
    gc.collect()
    deadline = time.monotonic() + 20
    while sf.reveal(keeper.alive()) != 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sf.reveal(keeper.alive()) == 1
    del again
    while sf.reveal(keeper.alive()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sf.reveal(keeper.alive()) == 0


def test_an_spu_is_described(alice, shared):
    spu = sf.SPU(sf.utils.testing.cluster_def(["alice", "bob"]))
    assert repr(spu) == "SPU(alice, bob)"
    with pytest.raises(PlanError, match=r"x\.to\(spu\)"):
        sf.SPUObject(spu, "key")
    with pytest.raises(PlanError, match="unknown party 'zoe'"):
        sf.SPU(sf.utils.testing.cluster_def(["alice", "zoe"]))
    node = {"party": "alice", "address": "127.0.0.1:1"}
    for wrong in (None, {}, {"nodes": []}, {"nodes": [node]}, {"nodes": [node, node]}, {"nodes": ["alice", "bob"]}):
        with pytest.raises(PlanError, match="SPU"):
            sf.SPU(wrong)


def test_the_ledger_tells_what_left(alice, bob):
    def entries(party):
        return sf.ledger().pages[party].entries

    x = alice(np.zeros)((4, 2))
    before = len(entries("alice"))
    sf.wait(x.to(bob))
    sf.reveal(x)
    new = [(e.to, e.kind, e.shape, e.dtype, e.nbytes, e.allowed) for e in entries("alice")[before:]]
    assert new[:2] == [("bob", "raw", (4, 2), "float64", 64, True), ("driver", "raw", (4, 2), "float64", 64, True)]
    ledger = sf.ledger()
    assert ledger.verify() == []
    assert ledger.totals()["alice", "bob", "raw"].count >= 1
    assert sf.ledger().pages["alice"].entries[-1].kind == "ledger"


def test_a_partys_objects_are_named_by_slots(alice, shared):
    x = alice(abs)(-1)
    assert x.slot().key == x.key
    from fedray.device import describe

    assert describe([alice(np.zeros)((3, 1)), alice(abs)(-1), alice(lambda: "abc")()]) == [
        ((3, 1), "float64"),
        (None, "int"),
        (3, "str"),
    ]
    assert describe([]) == []
