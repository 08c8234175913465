# SPDX-License-Identifier: Apache-2.0
"""What others write in their answers is a line of plain text where it gets into an error, whoever passes it on."""

import pytest

from fedray.errors import ServerFault
from fedray.party.records import Answer, RoundOutcome
from fedray.party.rounds.told import outcome, well_formed

ESCAPES = "late\x1b[2K\nround 0"


def test_a_reason_is_plain_also_where_a_compute_party_passes_it_on():
    told = outcome("p", RoundOutcome(Answer("aborted", reason=ESCAPES), b"proof"))
    assert told == RoundOutcome(Answer("aborted", reason=r"late\x1b[2K\nround 0"), b"proof")
    plain = Answer("aborted", reason="late")
    assert well_formed("s", plain) is plain


def test_a_verdict_that_there_is_not_is_quoted_in_part():
    with pytest.raises(ServerFault, match=r"found one that says 'xxx.* more characters") as caught:
        well_formed("s", Answer("x" * 10_000))
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize(
    "odd", [None, 5, Answer("aborted"), RoundOutcome(None), RoundOutcome(Answer("aborted"), "text")]
)
def test_what_is_no_outcome_names_who_told_it(odd):
    with pytest.raises(ServerFault, match=r"^'p' "):
        outcome("p", odd)
