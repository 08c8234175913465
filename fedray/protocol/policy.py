# SPDX-License-Identifier: Apache-2.0
"""What one party accepts, whatever the coordinator proposes. Local, never negotiated; a party refuses, never adapts.

Knows a Config and a roster, and how a policy is written down. Does not know data, models, keys, files or the state of a
session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from fedray.errors import PlanError, ProtocolError
from fedray.protocol.config import Config, default_colluders
from fedray.protocol.crypto.graph import CHOSEN_UP_TO, quorum
from fedray.protocol.crypto.keys import Roster
from fedray.protocol.scheme import Purpose

TWO_PARTY_NOTICE = (
    "With two parties, each can work out the other's exact contribution: it is the sum less its own. The masks keep it "
    "from the server alone; from three parties on it takes all the others together."
)

RANDOM_GRAPH_NOTICE = (
    f"More than {CHOSEN_UP_TO} parties: who is masked with whom is safe against dropouts by chance, not against a "
    "server that chooses whom to call dropped. Where the server is not trusted that far, take SPUAggregator, or refuse "
    "such sessions by the policy (random_graph='never')."
)

PURPOSES: tuple[Purpose, ...] = get_args(Purpose)


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
        random_graph: Whether a graph that is safe against random dropouts only is accepted (recovery): never, where the
            roster has more than 200 parties, or always.
        batch: Most rounds that one key set-up may serve (recovery).
        rounds: Most rounds per model hash (or operation id) and purpose, per session; each smaller view allows one
            more. Of training, most with the same rows. A purpose that is not listed is refused.
        views: Most views a session may shrink to; None for as many as the thresholds allow. Recovery and sums of
            shares have none: there 0 allows sums over all parties only, and other numbers mean nothing.
        member_changes: Most times that the set may change over which this party's rows are summed, in one run over all
            its sessions; None for any number. Each change may show one party's part of a sum.
        attempts: Most set-ups of one roster that were started and not finished.
        unprotected: Whether sums without protection are accepted, in which the server reads every contribution.
        allow_other_members: Whether a model hash may be used again with other parties in a later session, or with the
            same rows. A seeded batch replayed on the same model with other members gives exact differences.

    Example:
        >>> sf.Policy(n_min=4, two_party="never").n_min
        4
    """

    n_min: int = 3
    colluders: int | None = None
    two_party: Literal["never", "roster", "always"] = "roster"
    least_roster: int = 2
    rings: tuple[int, ...] = (32, 64)
    random_graph: Literal["never", "large", "always"] = "large"
    batch: int = 1024
    rounds: Mapping[str, int] = field(default_factory=lambda: {"train": 1, "evaluate": 8, "sum": 1})
    views: int | None = None
    member_changes: int | None = 64
    attempts: int = 16
    unprotected: bool = True
    allow_other_members: bool = False

    def __post_init__(self) -> None:
        for name, (expected, fits) in _ACCEPTED.items():
            if not fits(getattr(self, name)):
                raise PlanError(f"{name} must be {expected}, found {getattr(self, name)!r}")
        if self.n_min < 3 and not (self.n_min == 2 and self.two_party == "always"):
            raise PlanError(f"n_min must be at least 3, or 2 with two_party='always', found {self.n_min}")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Policy:
        """Returns the policy that plain settings describe, e.g. those of a TOML file; lists stand for tuples.

        Raises:
            PlanError: A setting is unknown or out of range.
        """
        known = [one.name for one in fields(cls)]
        for name in settings:
            if name not in known:
                raise PlanError(f"a policy has no {name!r}; it has {', '.join(known)}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
        return cls(**values)

    def settings(self) -> dict[str, Any]:
        """Returns plain settings, of which `of` makes the same policy."""
        return asdict(self) | {"rounds": dict(self.rounds)}

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
        # The roster first: all other numbers are about it.
        n = len(roster.names)
        if config.roster != roster.hash or config.parties != n:
            raise ProtocolError("Config refused: its roster is not the one this party holds; compare roster hashes")
        faults = self._faults(config, n)
        if config.scheme == "recovery":
            faults += self._recovery_faults(config)
        for setting, found, accepted, required in faults:
            if not accepted:
                raise ProtocolError(f"Config refused: {setting} is {found}, this party requires {required}")

    def _faults(self, config: Config, n: int) -> list[tuple[str, object, bool, str]]:
        """Returns (setting, found, accepted, required) of everything that concerns all schemes with protection."""
        inputs = config.contributors
        colluders = default_colluders(inputs) if self.colluders is None else self.colluders
        least = self.least_inputs(inputs)
        # Compute parties all sign; among contributors so many that two sets share an honest party.
        signers = len(config.receivers) if config.scheme == "sharing" else quorum(n, config.colluders)
        members = config.least_members
        ring = config.encoding.ring
        return [
            ("roster size", n, n >= self.least_roster, f"at least {self.least_roster}"),
            ("colluders", config.colluders, config.colluders >= colluders, f"at least {colluders}"),
            ("n_min", config.n_min, config.n_min >= least, f"at least {least}"),
            ("t_sig", config.t_sig, config.t_sig >= signers, f"at least {signers}"),
            ("roster size", inputs, inputs >= members, f"at least {members} (n_min, t_sig, T + 2)"),
            ("ring", ring, ring in self.rings, f"one of {self.rings}"),
        ]

    def _recovery_faults(self, config: Config) -> list[tuple[str, object, bool, str]]:
        complete = config.graph == "complete"
        everybody = config.degree == config.parties - 1
        # In larger rosters safety against chosen dropouts takes many more neighbours than most would pay for.
        chance = self.random_graph == "always" or (self.random_graph == "large" and config.parties > CHOSEN_UP_TO)
        above = f"more than {config.colluders}"
        return [
            ("t_share", config.t_share, not complete or config.t_share > config.colluders, above),
            ("degree", config.degree, complete == everybody or not complete, f"{config.parties - 1}"),
            ("graph", config.graph, chance or config.graph != "random", "'complete' or 'chosen' (random_graph)"),
            ("batch", config.batch, config.batch <= self.batch, f"at most {self.batch}"),
        ]


@dataclass(frozen=True, slots=True)
class Demands:
    """What a proposal must meet so that several parties accept it; where they can accept none, they still refuse.

    Attributes:
        colluders: T; None where the default is enough.
        n_min: Fewest inputs in an opened sum; None where the default is enough.
        chosen: Whether the graph must be safe against chosen dropouts; None for the default.
        batch: Most rounds that one key set-up may serve.
    """

    colluders: int | None
    n_min: int | None
    chosen: bool | None
    batch: int

    @classmethod
    def of(cls, policies: Iterable[Policy], inputs: int) -> Demands:
        """Returns what all these policies demand of sums over so many inputs."""
        asked = list(policies)
        usual, least = default_colluders(inputs), min(3, inputs)
        # Never fewer than the default, nor more than there are others: what cannot be met is proposed, and refused by
        # name.
        colluders = min(max([usual, *(p.colluders or 0 for p in asked)]), max(inputs - 1, 0))
        n_min = min(max([least, *(p.least_inputs(inputs) for p in asked)]), inputs)
        return cls(
            colluders if colluders > usual else None,
            n_min if n_min > least else None,
            True if any(p.random_graph == "never" for p in asked) else None,
            min((p.batch for p in asked), default=Policy().batch),
        )


def notice(config: Config) -> str | None:
    """Returns what a user must be told about a Config once per session, or None."""
    if config.contributors == 2 and config.scheme != "plain":
        return TWO_PARTY_NOTICE
    return RANDOM_GRAPH_NOTICE if config.scheme == "recovery" and config.graph == "random" else None


def _is_int(value: object, least: int, most: int = 1 << 62) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _are_ints(value: object, least: int, most: int) -> bool:
    return isinstance(value, tuple) and bool(value) and all(_is_int(one, least, most) for one in value)


def _are_rounds(value: object) -> bool:
    return isinstance(value, Mapping) and all(name in PURPOSES and _is_int(most, 0) for name, most in value.items())


_ACCEPTED: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "n_min": ("an integer", lambda value: _is_int(value, -(1 << 62))),
    "colluders": ("0 or more, or None", lambda value: value is None or _is_int(value, 0)),
    "two_party": ("'never', 'roster' or 'always'", lambda value: value in ("never", "roster", "always")),
    "least_roster": ("an integer from 1 on", lambda value: _is_int(value, 1)),
    "rings": ("32, 64 or both", lambda value: _are_ints(value, 32, 64) and set(value) <= {32, 64}),
    "random_graph": ("'never', 'large' or 'always'", lambda value: value in ("never", "large", "always")),
    "batch": ("an integer from 1 on", lambda value: _is_int(value, 1)),
    "rounds": (f"numbers of rounds by purpose ({', '.join(PURPOSES)})", _are_rounds),
    "views": ("an integer from 0 on, or None", lambda value: value is None or _is_int(value, 0)),
    "member_changes": ("an integer from 0 on, or None", lambda value: value is None or _is_int(value, 0)),
    "attempts": ("an integer from 1 on", lambda value: _is_int(value, 1)),
    "unprotected": ("true or false", lambda value: isinstance(value, bool)),
    "allow_other_members": ("true or false", lambda value: isinstance(value, bool)),
}
"""Setting -> what it must be, in words and as a test."""
