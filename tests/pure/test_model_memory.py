# SPDX-License-Identifier: Apache-2.0
"""How often one model serves, and with whom: within a session, across sessions, after an abandoned round."""

from contextlib import suppress

import numpy as np
import pytest
from pure.masking_kit import context_of, manifest_of, plain_values, session

from fedray.errors import ProtocolError
from fedray.protocol.memory import ModelMemory
from fedray.protocol.policy import Policy
from fedray.protocol.scheme import View

MANIFEST = manifest_of(2)
MODEL = b"m" * 32
ZEROS = plain_values(np.zeros(2))


def use(kit, number, model=MODEL, purpose="train", names=None):
    for name in names or kit.names:
        kit.send(name, context_of(number, MANIFEST, model, purpose=purpose), ZEROS)


@pytest.mark.parametrize(("purpose", "most"), [("train", 1), ("evaluate", 8), ("sum", 1)])
def test_a_model_serves_so_often(purpose, most):
    kit = session(3)
    for number in range(most):
        use(kit, number, purpose=purpose)
    with pytest.raises(ProtocolError, match=f"already served {most} rounds of purpose '{purpose}'"):
        use(kit, most, purpose=purpose)
    use(kit, most, model=b"n" * 32, purpose=purpose)


def test_purposes_are_counted_apart():
    kit = session(3)
    use(kit, 0)
    for number in range(1, 9):
        use(kit, number, purpose="evaluate")
    use(kit, 9, purpose="sum")
    with pytest.raises(ProtocolError, match="'train'"):
        use(kit, 10)


def test_an_unknown_purpose_is_refused():
    with pytest.raises(ProtocolError, match="no round for 'spy'"):
        use(session(3), 0, purpose="spy")


def test_the_policy_says_how_often():
    kit = session(3, policy=Policy(rounds={"train": 2}))
    use(kit, 0)
    use(kit, 1)
    with pytest.raises(ProtocolError, match="this party allows 2"):
        use(kit, 2)
    with pytest.raises(ProtocolError, match="no round for 'evaluate'"):
        use(kit, 2, purpose="evaluate")


def test_no_rounds_are_none_at_all():
    kit = session(5, policy=Policy(colluders=0, rounds={"train": 1, "evaluate": 0}), colluders=0)
    use(kit, 0)
    for counter, left in ((1, kit.names), (2, kit.names[:4])):
        with pytest.raises(ProtocolError, match=r"already served 0 rounds of purpose 'evaluate'.* allows 0"):
            use(kit, counter, purpose="evaluate", names=left)
        with pytest.raises(ProtocolError, match="allows 0"):
            use(kit, counter, purpose="evaluate", model=b"n" * 32, names=left)
        if counter == 1:
            kit.join(View(1, kit.names[:4]))
            use(kit, 1, names=kit.names[:4])


def test_each_smaller_view_allows_one_more():
    kit = session(5, policy=Policy(colluders=0), colluders=0)
    use(kit, 0)
    for counter, left in ((1, kit.names[:4]), (2, kit.names[:3])):
        with pytest.raises(ProtocolError, match="already served"):
            use(kit, counter, names=left)
        kit.join(View(counter, left))
        use(kit, counter, names=left)
        with pytest.raises(ProtocolError, match="already served"):
            use(kit, counter + 1, names=left)


def test_a_later_model_gets_nothing_extra_from_an_earlier_view():
    kit = session(4)
    kit.join(View(1, kit.names[:3]))
    use(kit, 0, names=kit.names[:3])
    with pytest.raises(ProtocolError, match="allows 1"):
        use(kit, 1, names=kit.names[:3])


def test_a_seeded_rerun_with_the_same_parties_is_allowed():
    kit = session(3)
    for _ in range(3):
        for number in range(4):
            use(kit, number, model=bytes([number]) * 32)
        kit = kit.again()


def test_other_parties_on_the_same_model_are_refused_in_a_later_session():
    """A seeded batch replayed on the same model, without one party, would give that party's exact input."""
    kit = session(4)
    use(kit, 0)
    keys = {name: kit.keys[name] for name in kit.names[:3]}
    smaller = session(3, keys=keys, memories=kit.memories)
    with pytest.raises(ProtocolError, match=r"p00: this model was already summed over \['p00', 'p01', 'p02', 'p03'\]"):
        use(smaller, 0)
    use(smaller, 0, model=b"n" * 32)
    allowing = smaller.again(Policy(allow_other_members=True))
    use(allowing, 0)


def test_a_smaller_view_in_a_later_session_is_refused_on_a_model_it_never_served():
    kit = session(4)
    use(kit, 0)
    later = kit.again()
    later.join(View(1, later.names[:3]))
    with pytest.raises(ProtocolError, match="already summed over"):
        use(later, 0, names=later.names[:3])


def test_a_rerun_may_lose_a_party_where_the_first_run_did_not():
    kit = session(4)
    use(kit, 0)
    later = kit.again()
    use(later, 0)
    later.join(View(1, later.names[:3]))
    use(later, 1, names=later.names[:3])


def test_refused_rounds_are_not_counted():
    kit = session(3)
    for number in range(3):
        with suppress(ProtocolError):
            kit.send("p00", context_of(number, MANIFEST, MODEL), plain_values([np.nan, 0.0]))
    kit.send("p00", context_of(3, MANIFEST, MODEL), ZEROS)


def test_a_repeat_is_not_counted():
    kit = session(3)
    for _ in range(5):
        use(kit, 0)


def test_unfinished_set_ups_are_limited():
    memory = ModelMemory()
    for _ in range(20):
        memory.begin(b"roster", 2)
        memory.finish(b"roster")
    memory.begin(b"roster", 2)
    memory.begin(b"roster", 2)
    memory.begin(b"other", 2)
    with pytest.raises(ProtocolError, match="2 set-ups"):
        memory.begin(b"roster", 2)
