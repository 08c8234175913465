# SPDX-License-Identifier: Apache-2.0
"""What stays of a run that was broken off, and that what cannot be removed is told and nothing more."""

from types import SimpleNamespace

import pytest

from fedray.ml.nn.checkpoints.thinning import at_end, at_interruption

HELD = {"alice": [1, 2, 3, 4], "bob": [1, 2, 3]}


class Folder:
    """The driver's half of a run with four checkpoints.

    Args:
        gone: Whether it was removed meanwhile.
    """

    def __init__(self, gone: bool = False) -> None:
        self.there, self._gone = [1, 2, 3, 4], gone

    def numbers(self) -> list[int]:
        if self._gone:
            raise FileNotFoundError(2, "No such file or directory")
        return self.there

    def remove(self, numbers: list[int]) -> None:
        self.there = [number for number in self.there if number not in numbers]


def parts(answered: bool = True) -> SimpleNamespace:
    """Returns what stands for the parties' parts, with what they were asked to keep."""
    asked: list[tuple[tuple[str, ...], tuple[int, ...]]] = []

    def thin_soon(there: tuple[str, ...], stay: tuple[int, ...]) -> bool:
        asked.append((tuple(there), tuple(stay)))
        return answered

    return SimpleNamespace(parties=tuple(HELD), held=HELD, thin=thin_soon, thin_soon=thin_soon, asked=asked)


@pytest.mark.parametrize(
    ("keep", "stay", "left"), [(1, (3,), [3, 4]), (2, (2, 3), [2, 3, 4]), (9, (1, 2, 3), [1, 2, 3, 4])]
)
def test_the_newest_that_all_have_stay_and_what_is_newer(keep, stay, left):
    for thin in (
        lambda folder, held: at_end(folder, held, ("alice", "bob"), keep),
        lambda *of: at_interruption(*of, keep),
    ):
        folder, held = Folder(), parts()
        assert thin(folder, held) == ""
        assert folder.there == left
        assert held.asked[-1] == (("alice", "bob"), stay)


def test_where_a_party_does_not_answer_everything_stays():
    folder, held = Folder(), parts(answered=False)
    assert at_interruption(folder, held, 1) == ""
    assert (folder.there, held.asked) == ([1, 2, 3, 4], [(("alice", "bob"), ())])


def test_a_folder_that_is_gone_takes_no_error_s_place():
    held = parts()
    assert "could not be removed at the driver (No such file or directory)" in at_interruption(
        Folder(gone=True), held, 1
    )
    assert held.asked == [(("alice", "bob"), ())], "and no party removes anything"
