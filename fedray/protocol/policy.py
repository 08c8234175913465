# SPDX-License-Identifier: Apache-2.0
"""What one party accepts, whatever the coordinator proposes. Local, never negotiated; a party refuses, never adapts.

Knows a Config and a roster. Does not know data, models, keys or the state of a session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fedray.errors import PlanError, ProtocolError
from fedray.protocol.config import Config, default_colluders
from fedray.protocol.graph import quorum
from fedray.protocol.keys import Roster
from fedray.protocol.scheme import Purpose

TWO_PARTY_NOTICE = (
    "Two parties only: each of them learns the other's exact contribution, by subtracting its own from the sum. "
    "Masking keeps it from a third party at the server, and from nobody else. Only differential privacy or more "
    "parties change that."
)


@dataclass(frozen=True, slots=True)
class Policy:
    """One party's limits.

    Attributes:
        n_min: Fewest inputs in an opened sum.
        colluders: T, at least so many colluding parties must be tolerated; None for max(1, floor((n - 1) / 3)).
        two_party: Whether sums of two inputs are allowed: never, where the whole roster has two members (making such
            an aggregator is asking for it), or always.
        least_roster: Fewest parties in a session.
        rings: Accepted ring sizes, bits.
        fraction: Least and most fraction bits.
        refuse_overflow: Refuse values beyond the clip bound, also where the Config would clip them.
        random_graph: Whether a graph that is safe against random dropouts only is accepted (part B).
        batch: Most rounds that one key set-up may serve (part B).
        rounds: Most rounds per model hash (or operation id) and purpose, per session; each smaller view allows one
            more.
        views: Most views a session may shrink to; None for as many as the thresholds allow.
        attempts: Most set-ups of one roster that were started and not finished.
        allow_other_members: Whether a model hash may be used again with other parties in a later session. A seeded
            batch replayed on the same model with other members gives exact differences.
        require_privacy: Refuse a Config without privacy noise.
    """

    n_min: int = 3
    colluders: int | None = None
    two_party: Literal["never", "roster", "always"] = "roster"
    least_roster: int = 2
    rings: tuple[int, ...] = (32, 64)
    fraction: tuple[int, int] = (8, 52)
    refuse_overflow: bool = False
    random_graph: bool = False
    batch: int = 1024
    rounds: Mapping[str, int] = field(default_factory=lambda: {"train": 1, "evaluate": 8, "sum": 1})
    views: int | None = None
    attempts: int = 16
    allow_other_members: bool = False
    require_privacy: bool = False

    def __post_init__(self) -> None:
        if self.n_min < 3 and not (self.n_min == 2 and self.two_party == "always"):
            raise PlanError(f"n_min must be at least 3, or 2 with two_party='always', found {self.n_min}")
        if self.two_party not in ("never", "roster", "always"):
            raise PlanError(f"two_party must be 'never', 'roster' or 'always', found {self.two_party!r}")
        if self.colluders is not None and self.colluders < 0:
            raise PlanError(f"colluders must be 0 or more, found {self.colluders}")

    def least_inputs(self, parties: int) -> int:
        """Returns the fewest inputs in an opened sum, for a roster of so many parties."""
        if self.two_party == "always" or (parties == 2 and self.two_party == "roster"):
            return min(self.n_min, parties)
        return self.n_min

    def rounds_for(self, purpose: Purpose) -> int:
        """Returns how many rounds one model may serve for a purpose.

        Raises:
            ProtocolError: The policy does not know the purpose.
        """
        if purpose not in self.rounds:
            raise ProtocolError(f"no round for {purpose!r} is allowed: the policy knows {sorted(self.rounds)}")
        return self.rounds[purpose]

    def accept(self, config: Config, roster: Roster) -> None:
        """Checks a proposed Config against this policy and the party's own copy of the roster.

        Raises:
            ProtocolError: The Config is refused; the message names the setting, what was proposed and what is required.
        """
        n = len(roster.names)
        if config.roster != roster.hash or config.parties != n:
            raise ProtocolError("Config refused: its roster is not the one this party holds; compare roster hashes")
        faults = self._faults(config, n)
        if config.part == "recovery":
            faults += self._recovery_faults(config)
        for setting, found, accepted, required in faults:
            if not accepted:
                raise ProtocolError(f"Config refused: {setting} is {found}, this party requires {required}")

    def _faults(self, config: Config, n: int) -> list[tuple[str, object, bool, str]]:
        """Returns (setting, found, accepted, required) of everything that concerns all schemes with protection."""
        inputs = config.contributors
        colluders = default_colluders(inputs) if self.colluders is None else self.colluders
        least = self.least_inputs(inputs)
        signers = len(config.receivers) if config.part == "sharing" else quorum(n, config.colluders)
        members = config.least_members
        low, high = self.fraction
        fraction, ring = config.encoding.fraction, config.encoding.ring
        return [
            ("roster size", n, n >= self.least_roster, f"at least {self.least_roster}"),
            ("colluders", config.colluders, config.colluders >= colluders, f"at least {colluders}"),
            ("n_min", config.n_min, config.n_min >= least, f"at least {least}"),
            ("t_sig", config.t_sig, config.t_sig >= signers, f"at least {signers}"),
            ("roster size", inputs, inputs >= members, f"at least {members} (n_min, t_sig, T + 2)"),
            ("ring", ring, ring in self.rings, f"one of {self.rings}"),
            ("fraction", fraction, low <= fraction <= high, f"{low} to {high}"),
            ("privacy", "absent", bool(config.privacy) or not self.require_privacy, "privacy noise"),
        ]

    def _recovery_faults(self, config: Config) -> list[tuple[str, object, bool, str]]:
        complete = config.graph == "complete"
        everybody = config.degree == config.parties - 1
        above = f"more than {config.colluders}"
        return [
            ("t_share", config.t_share, not complete or config.t_share > config.colluders, above),
            ("degree", config.degree, complete == everybody or not complete, f"{config.parties - 1}"),
            ("graph", config.graph, self.random_graph or config.graph != "random", "complete or chosen"),
            ("batch", config.batch, config.batch <= self.batch, f"at most {self.batch}"),
        ]


def notice(config: Config) -> str | None:
    """Returns what a user must be told about a Config once per session, or None."""
    return TWO_PARTY_NOTICE if config.contributors == 2 and config.part != "plain" else None
