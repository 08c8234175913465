# SPDX-License-Identifier: Apache-2.0
"""Who owns inputs and who computes in one session of sharing, checked against a roster. Knows names and counts only."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from fedray.errors import ProtocolError
from fedray.protocol.config import Config
from fedray.protocol.crypto.keys import Roster
from fedray.types import PartyName


@dataclass(frozen=True, slots=True)
class Roles:
    """The two roles of a session; a party may have both.

    Attributes:
        owners: Roster places of those that contribute, in order.
        compute_parties: Roster places of the compute parties P_0..P_c-1, in the Config's order.
        least: Fewest owners whose inputs may be opened together: n_min and T + 2.
    """

    owners: tuple[int, ...]
    compute_parties: tuple[int, ...]
    least: int

    @classmethod
    def of(cls, config: Config, roster: Roster) -> Roles:
        """Returns the roles that a Config states.

        Raises:
            ProtocolError: It is not for scheme sharing, or names a party that the roster does not have.
        """
        if config.scheme != "sharing":
            raise ProtocolError(f"Config refused: scheme is {config.scheme!r}, expected 'sharing'")
        owners = tuple(roster.index(name) for name in (config.owners or roster.names))
        computing = tuple(roster.index(name) for name in config.receivers)
        if len(computing) < 2:
            raise ProtocolError(f"Config refused: shares need two compute parties or more, found {config.receivers}")
        if list(owners) != sorted(owners):
            raise ProtocolError(f"Config refused: owners are listed in roster order, found {config.owners}")
        # A party without a role would hold channel keys and be counted in nothing.
        if set(owners) | set(computing) != set(range(len(roster.names))):
            raise ProtocolError("Config refused: a party of the roster neither contributes nor computes")
        if config.t_sig != len(computing):
            raise ProtocolError(
                f"Config refused: all {len(computing)} compute parties sign, found t_sig {config.t_sig}"
            )
        return cls(owners, computing, config.least_members)

    def home(self, owner: int) -> int:
        """Returns which compute party gets an owner's long share: the owner itself if it is one, else they alternate.

        Args:
            owner: The owner's place in the roster.

        Returns:
            The compute party's number, 0..c-1.
        """
        # An owner that computes keeps its own long share: nothing long leaves it. The others are spread evenly.
        return self.compute_parties.index(owner) if owner in self.compute_parties else owner % len(self.compute_parties)

    def check_members(self, members: Collection[int], roster: Roster) -> None:
        """Checks a set of owners whose inputs are to be opened together.

        Raises:
            ProtocolError: It is too small, or somebody in it is no owner or is listed twice.
        """
        found = list(members)
        if found != sorted(set(found)) or not set(found) <= set(self.owners):
            raise ProtocolError(f"a set of owners lists each once and in roster order, found places {found}")
        if len(found) < self.least:
            names = ", ".join(roster.names[i] for i in found) or "nobody"
            raise ProtocolError(
                f"the inputs of {len(found)} owners ({names}) may not be opened: at least {self.least} are required "
                "(n_min, T + 2)"
            )


def names_of(places: Collection[int], roster: Roster) -> tuple[PartyName, ...]:
    """Returns the names at some places of a roster."""
    return tuple(roster.names[place] for place in places)
