# SPDX-License-Identifier: Apache-2.0
"""Nothing leaves a party but through the door."""

import threading

import numpy as np
import pytest
from pure.ledger_kit import entries_at, page_of

from fedray.commands.demo_report import _KINDS
from fedray.errors import EgressDenied, PlanError
from fedray.party.context import Reply
from fedray.party.door import egress
from fedray.party.door.egress import DRIVER, DefaultPolicy, Egress, Kind, Leaving, StrictPolicy
from fedray.party.door.entry import entry_of
from fedray.party.door.journal import Journal
from fedray.party.parcel import Parcel, pack
from fedray.party.party import LANES, Party, lane_widths
from fedray.party.table import Slot
from fedray.types import Failure, PartyConfig

SECRET = "4711-secret"


class Refusing:
    """A policy that lets nothing leave, and notes what was asked for."""

    def __init__(self):
        self.asked = []

    def check(self, leaving):
        self.asked.append(leaving)
        raise EgressDenied(f"refused {SECRET}")


class Noting(DefaultPolicy):
    def __init__(self):
        self.asked = []

    def check(self, leaving):
        self.asked.append(leaving)


class Calls:
    """Stands for the transport inside a party: notes what is sent."""

    def __init__(self):
        self.sent = []

    def call(self, party, method, *args):
        self.sent.append((party, method, args))
        return "ref"

    def get(self, refs, timeout):
        return [SECRET for _ in refs]


class Talkative:
    """A service that tells everything it can."""

    def __init__(self, context):
        self.context = context

    def deliver(self, sender, message):
        return Reply(Kind.MASKED, SECRET)

    def watch(self):
        return Reply(Kind.AGGREGATE, SECRET)

    def answer(self):
        return Reply(Kind.METRICS, np.ones(5))

    def send(self):
        self.context.send("9:send", "bob", "k", np.ones((2, 2)), Kind.MASKED)

    def fail(self):
        raise ValueError(SECRET)

    def nothing(self):
        return None


def explode():
    raise ValueError(SECRET)


def party(policy):
    made = Party(PartyConfig("alice", ("alice", "bob"), 0), Calls(), policy)
    made.handle("serve", "1:serve", "service", pack((Talkative, ())))
    made.handle("run", "2:run", ("value",), pack((str, (SECRET,), {})))
    made.handle("run", "3:run", ("failed",), pack((explode, (), {})))
    return made


# Method -> argument lists. Every method of the party must be here.
CALLS = {
    "run": [(("a",), pack((str, (SECRET,), {}))), (("b",), pack((explode, (), {}))), ((), pack((explode, (), {})))],
    "create": [("c", pack((list, ([SECRET],), {}))), ("d", pack((explode, (), {})))],
    "invoke": [(("e",), "value", "upper", pack(((), {}))), ((), "value", "nothing", pack(((), {})))],
    "serve": [("f", pack((Talkative, ()))), ("g", pack((Talkative, (1, 2))))],
    "ask": [("service", name, pack(())) for name in ("answer", "fail", "nothing", "send", "missing", "__init__")],
    "export": [("value", "driver"), ("value", "bob"), ("failed", "driver"), ("missing", "bob")],
    "adopt": [("h", ["ref"])],
    "describe": [("value",), ("failed",), ("missing",)],
    "settle": [(["value"],), (["value", "failed"],), (["missing"],)],
    "release": [(["a", "missing"],)],
    "ledger": [(0, 1), (None, 1), (0, 0)],
    "close_ledger": [(0, 1), (None, 1)],
    "introduce": [()],
    "install_roster": [({"alice": b"wrong"}, {"alice": b"mark"})],
    "deliver": [("service", "bob", b"message"), ("failed", "bob", b"message")],
    "tell": [("service", name, pack(())) for name in ("answer", "fail", "nothing")],
    "watch": [("service", pack(()))],
    "mark": [("to here",)],
}

EVERY_CALL = [(method, args) for method, lists in CALLS.items() for args in lists]


def test_every_method_is_tried():
    assert set(CALLS) == set(LANES)


@pytest.mark.parametrize(("method", "args"), EVERY_CALL)
def test_under_a_policy_that_refuses_everything_only_acknowledgements_come_out(method, args):
    out = party(Refusing()).handle(method, f"4:{method}", *args)
    nothing = Failure("EgressDenied", "party 'alice' lets nothing leave, not even this error", "alice")
    assert out is None or out == nothing


@pytest.mark.parametrize(("method", "args"), EVERY_CALL)
def test_whatever_comes_out_has_been_asked_for_and_is_in_the_ledger(method, args):
    policy = Noting()
    tried = party(policy)
    before = len(policy.asked)
    out = tried.handle(method, f"4:{method}", *args)
    asked = policy.asked[before:]
    inner = [leaving for leaving in asked if leaving.call == "9:send"]
    assert len(asked) - len(inner) == (0 if out is None else 1)
    if method == "close_ledger":
        noted = [entry_of(line, "alice", index) for index, line in enumerate(tried._journal._lines)]
    else:
        noted = entries_at(tried, 2)[: len(policy.asked) - 1]
        policy.asked.pop()  # this reading's own
    assert [(e.to, e.kind, e.shape, e.dtype, e.call) for e in noted] == [
        (a.to, a.kind, a.shape, a.dtype, a.call) for a in policy.asked
    ]
    assert all(
        e.nbytes == a.nbytes or (a.nbytes is None and e.nbytes) for e, a in zip(noted, policy.asked, strict=True)
    )
    if isinstance(out, Failure):
        assert asked[-1].kind is Kind.ERROR
    elif out is not None:
        assert asked[-1].call == f"4:{method}"
        assert asked[-1].sender == "alice"


def test_a_method_that_is_not_in_the_table_cannot_be_called():
    for name in ("handle", "_make", "__init__", "name", "nothing"):
        out = party(Noting()).handle(name, "4:x")
        assert isinstance(out, Failure)
        assert "no method" in out.message


def test_answers_go_to_whoever_asked():
    policy = Noting()
    tried = party(policy)
    expected = {
        ("deliver", ("service", "bob", b"m")): "bob",
        ("export", ("value", "bob")): "bob",
        ("export", ("missing", "bob")): "bob",
        ("watch", ("service", pack(()))): DRIVER,
        ("describe", ("value",)): DRIVER,
    }
    for (method, args), to in expected.items():
        tried.handle(method, "4:x", *args)
        assert policy.asked[-1].to == to


def test_a_refused_message_is_never_sent():
    for policy, sent in ((Refusing(), 0), (Noting(), 1)):
        tried = party(policy)
        tried.handle("ask", "4:ask", "service", "send", pack(()))
        assert len(tried._calls.sent) == sent
        assert [a.kind for a in policy.asked if a.call == "9:send"] == [Kind.MASKED]


def test_a_policy_that_itself_fails_refuses():
    class Broken:
        def check(self, leaving):
            raise RuntimeError(SECRET)

    tried = party(Broken())
    assert tried.handle("export", "4:export", "value", "driver") == Failure(
        "EgressDenied", "party 'alice' lets nothing leave, not even this error", "alice"
    )


def test_refused_attempts_are_written_down():
    tried = party(StrictPolicy())
    out = tried.handle("export", "4:export", "value", "driver")
    assert (out.error, out.party) == ("EgressDenied", "alice")
    entries = entries_at(tried)
    assert [(e.kind, e.to, e.allowed) for e in entries] == [
        ("raw", "driver", False),
        ("error", "driver", True),
        ("ledger", "driver", True),
    ]


def test_raw_values_leave_as_parcels_and_others_as_they_are():
    tried = party(DefaultPolicy())
    out = tried.handle("export", "4:export", "value", "driver")
    assert isinstance(out, Parcel)
    assert out.open() == SECRET
    assert tried.handle("watch", "4:watch", "service", pack(())) == SECRET


@pytest.mark.parametrize("kind", list(Kind))
def test_policies(kind):
    leaving = Leaving("alice", "bob", kind, (2,), "float64", 16, "1:x")
    DefaultPolicy().check(leaving)
    if kind is Kind.RAW:
        with pytest.raises(
            EgressDenied, match=r"'alice'.*: float64 \(2,\) for 'bob', asked for by 'x' \(statement 1 in the ledger\)"
        ):
            StrictPolicy().check(leaving)
    elif kind is Kind.LOG:
        with pytest.raises(EgressDenied, match="'alice' lets nothing leave that it prints"):
            StrictPolicy().check(leaving)
    else:
        StrictPolicy().check(leaving)


class Rows:
    """A user's own table, which cannot be pickled, and quotes itself where it says so."""

    tried = 0

    def __reduce__(self):
        type(self).tried += 1
        raise ValueError(f"row {SECRET} cannot be pickled")


class Giving:
    """A service that lets out such a table as something that a strict policy lets pass."""

    def __init__(self, context):
        pass

    def give(self):
        return Reply(Kind.METRICS, Rows())


def strict_party(method, *args):
    tried = Party(PartyConfig("alice", ("alice", "bob"), 0, egress="strict"), Calls())
    tried.handle("run", "1:run", ("rows",), pack((Rows, (), {})))
    tried.handle("serve", "2:serve", "service", pack((Giving, ())))
    return tried.handle(method, "3:x", *args), entries_at(tried)


def test_the_policy_is_asked_before_anything_is_measured(monkeypatch):
    monkeypatch.setattr(Rows, "tried", 0)
    out, entries = strict_party("export", "rows", "driver")
    assert (out.error, Rows.tried) == ("EgressDenied", 0)
    assert "(egress='strict'): a type of the user's own for 'driver', asked for by 'x'" in out.message
    assert SECRET not in repr(out)
    assert (entries[0].kind, entries[0].dtype, entries[0].nbytes, entries[0].allowed) == ("raw", "Rows", 0, False)


def test_a_door_that_measures_first_runs_the_user_s_code_for_what_it_refuses(monkeypatch):
    """The broken variant."""
    monkeypatch.setattr(Rows, "tried", 0)
    monkeypatch.setattr(egress, "glance", egress.measure)
    assert strict_party("export", "rows", "driver")[0].error == "PlanError"
    assert Rows.tried > 0


def test_no_row_of_what_cannot_be_pickled_is_in_the_error():
    out, _ = strict_party("ask", "service", "give", pack(()))
    assert "a value cannot be pickled, found a type of the user's own: (withheld)" in out.message
    assert SECRET not in repr(out)


def test_the_demo_says_what_every_kind_is():
    assert set(_KINDS) == set(Kind)


def test_an_unknown_kind_cannot_leave():
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    journal = Journal("alice", Ed25519PrivateKey.generate())
    door = Egress("alice", DefaultPolicy(), journal)
    with pytest.raises(ValueError, match="gossip"):
        door.send(1, to="driver", kind="gossip", call="1:x")
    door.send(np.ones(1), to="driver", kind="raw", call="1:x")
    assert [e.kind for e in page_of(journal, {}).entries] == ["raw"]


def test_slots_stand_for_objects_and_failures_propagate():
    tried = party(Noting())
    tried.handle("run", "4:use", ("u",), pack((len, (Slot("value"),), {})))
    assert tried.handle("export", "5:x", "u", "driver").open() == len(SECRET)
    tried.handle("run", "6:use", ("u",), pack((len, ([Slot("failed")],), {})))
    out = tried.handle("settle", "7:settle", ["u"])
    assert (out.error, out.function) == ("PartyError", "run")
    assert "ValueError in run" in out.message


def test_lanes():
    assert set(LANES.values()) == set(lane_widths(3))
    assert lane_widths(3)["command"] == 1
    assert all(lane_widths(n)["message"] >= n + 2 for n in range(1, 20))


def test_the_error_of_an_unpicklable_value_is_ours():
    with pytest.raises(PlanError, match="a value cannot be pickled, found type 'lock'"):
        pack(threading.Lock())
