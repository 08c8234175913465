# SPDX-License-Identifier: Apache-2.0
"""S1: all that a session agrees on, as one record with canonical bytes, whatever the scheme.

Knows which settings fit together (the ring has headroom, the thresholds make sense). Does not know what a party is
willing to accept: that is `policy`, which never leaves the party.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeVar, get_args

from fedray.errors import EncodingError, PlanError
from fedray.protocol.crypto.graph import quorum
from fedray.protocol.crypto.keys import MOST_PARTIES, Roster
from fedray.protocol.crypto.names import check_name
from fedray.protocol.messages import HASH_BYTES, FieldKind, dec, dec_list, digest, enc, enc_list
from fedray.types import PartyName

SchemeName = Literal["plain", "masking", "recovery", "sharing"]
GraphRule = Literal["complete", "chosen", "random"]

Record = TypeVar("Record")

SUITE = "x25519-ed25519-hkdf-sha256-aes256ctr-chacha20poly1305"
EXACT_IN_FLOAT = 1 << 53
SPARE_BITS = 5
"""Bits of a word that no party's real number reaches: the sign, and room for the check of sums."""
ROUNDING = "nearest"
"""To the nearest integer, halves to the even one: the only rule there is. It is in the bytes, as any setting is."""

NO_PRIVACY = b""
"""What the bytes say of privacy noise, of which there is none: whoever claims some makes no Config."""


@dataclass(frozen=True)
class Encoding:
    """How numbers become ring words (SECAGG section 4). The bound of each tensor is in the manifest.

    Attributes:
        ring: Bits l of a word, 64 or 32.
        weight_bound: Largest weight W of one party in one round.
    """

    ring: int = 64
    weight_bound: int = 1

    def __post_init__(self) -> None:
        if self.ring not in (32, 64):
            raise PlanError(f"ring must be 32 or 64 bits, found {self.ring!r}")
        if isinstance(self.weight_bound, bool) or not isinstance(self.weight_bound, int) or self.weight_bound < 1:
            raise PlanError(f"weight_bound must be an integer of at least 1, found {self.weight_bound!r}")

    def top(self, parties: int) -> int:
        """Returns t, where 2^t is the largest absolute word that one of so many parties sends for a real number.

        The sum stays below 2^(l-4): three bits more than a sign needs are left to the check of sums.
        """
        return self.ring - SPARE_BITS - (parties - 1).bit_length()

    def fine(self, parties: int) -> int:
        """Returns f, where a sum of so many parties has the promised precision once a word reaches 2^f.

        Every party rounds by half a step. So n / 2 steps are 2^-24 of 2^f of them (2^-12 in a ring of 32 bits).
        """
        return self.ring * 3 // 8 - 1 + (parties - 1).bit_length()

    @property
    def sum_limit(self) -> int:
        """What every word of a sum is below, in absolute value: 2^60 in a ring of 64 bits, as its check needs."""
        return 1 << (self.ring + 1 - SPARE_BITS)

    def integer_bound(self, parties: int) -> int:
        """Returns the largest absolute integer that so many parties can each add within the limit of a sum."""
        return (self.sum_limit - 1) // parties

    def check_headroom(self, parties: int) -> None:
        """Checks that a sum over so many parties cannot wrap.

        Raises:
            PlanError: It could; the message says by how much.
        """
        if parties * self.weight_bound >= self.sum_limit:
            raise PlanError(
                f"{parties} parties with weights up to {self.weight_bound} overflow a ring of {self.ring} bits"
            )

    @cached_property
    def canonical(self) -> bytes:
        """The bytes that `encode` returns; every round's context has them."""
        return enc("encoding", self.ring, ROUNDING, self.weight_bound)

    def encode(self) -> bytes:
        """Returns canonical bytes."""
        return self.canonical

    @classmethod
    def decode(cls, data: bytes) -> Encoding:
        """Parses canonical bytes.

        Raises:
            EncodingError: They are not an encoding's bytes, or its settings do not fit together.
        """
        ring, rounding, bound = dec("encoding", data, (int, str, int))
        if rounding != ROUNDING:
            raise EncodingError(f"encoding: numbers are rounded to {ROUNDING}, found {rounding!r}")
        return _made(cls, ring, bound)


@dataclass(frozen=True)
class Config:
    """What the coordinator proposes and every party checks; its hash is in every key of the session.

    Attributes:
        scheme: The scheme.
        roster: Hash of the roster.
        parties: Size n of the roster.
        receivers: Who takes the messages: the server, or the compute parties in order.
        encoding: How numbers become words.
        colluders: T, how many parties may collude with the coordinator.
        n_min: Fewest inputs in an opened sum.
        t_sig: Fewest members of a view (masking), signers of a survivor set (recovery).
        t_share: Shares that reconstruct a secret (recovery).
        graph: Who is masked with whom (recovery): everybody, or k neighbours, safe against dropouts that the
            coordinator chooses, or against random ones only.
        degree: k, neighbours of each party.
        dropouts: Most parties that may drop out of one round (recovery).
        batch: Rounds that one key set-up serves (recovery).
        set_up_timeout: Deadline of each set-up exchange, milliseconds.
        round_timeout: Deadline of each exchange of a round, milliseconds.
        suite: The cryptographic algorithms.
        owners: Who contributes (sharing, where compute parties need own no data), in roster order; empty for everybody.
        compress: Whether all shares but one are seeds (sharing), which rests on AES, or all are as long as the vector.
    """

    scheme: SchemeName
    roster: bytes
    parties: int
    receivers: tuple[PartyName, ...]
    encoding: Encoding
    colluders: int
    n_min: int
    t_sig: int
    t_share: int
    graph: GraphRule = "complete"
    degree: int = 0
    dropouts: int = 0
    batch: int = 64
    set_up_timeout: int = 60_000
    round_timeout: int = 300_000
    suite: str = SUITE
    owners: tuple[PartyName, ...] = ()
    compress: bool = True

    def __post_init__(self) -> None:
        if self.scheme not in get_args(SchemeName) or self.graph not in get_args(GraphRule) or self.suite != SUITE:
            raise PlanError(f"unknown scheme {self.scheme!r}, graph {self.graph!r} or suite {self.suite!r}")
        n = self.parties
        if len(self.roster) != HASH_BYTES or not 1 <= n <= MOST_PARTIES:
            raise PlanError(f"expected a roster hash and 1..{MOST_PARTIES} parties, found {n} parties")
        if not self.receivers or len(set(self.receivers)) != len(self.receivers):
            raise PlanError(f"expected at least one receiver, each once, found {self.receivers}")
        for name in self.receivers:
            check_name(name)
        if self.scheme != "sharing" and (self.owners or not self.compress):
            raise PlanError(
                f"scheme {self.scheme!r}: everybody contributes one vector; owners and compress are of scheme 'sharing'"
            )
        if len(set(self.owners)) != len(self.owners) or len(self.owners) > n:
            raise PlanError(f"owners: expected parties of the roster, each once, found {self.owners}")
        self.encoding.check_headroom(self.contributors)
        if not 0 <= self.colluders < n or not 1 <= self.n_min <= n:
            raise PlanError(f"{n} parties: colluders {self.colluders} or n_min {self.n_min} is out of range")
        if not 1 <= self.t_sig <= n or not 1 <= self.t_share <= n:
            raise PlanError(f"{n} parties: t_sig {self.t_sig} or t_share {self.t_share} is out of range")
        if not 0 <= self.degree < n or not 0 <= self.dropouts < n:
            raise PlanError(f"{n} parties: degree {self.degree} or dropouts {self.dropouts} is out of range")
        if min(self.batch, self.set_up_timeout, self.round_timeout) < 1:
            raise PlanError("batch and timeouts must be at least 1")

    @classmethod
    def propose(
        cls,
        scheme: SchemeName,
        roster: Roster,
        receivers: Sequence[PartyName],
        encoding: Encoding,
        *,
        colluders: int | None = None,
        n_min: int | None = None,
        owners: Sequence[PartyName] = (),
        compress: bool = True,
    ) -> Config:
        """Returns the Config with the default thresholds of section 10 for a complete graph.

        Args:
            scheme: The scheme.
            roster: The parties that contribute, and in sharing those that compute.
            receivers: The server, or the compute parties.
            encoding: How numbers become words.
            colluders: T; by default max(1, floor((n - 1) / 3)) of n contributors, or 0 for two.
            n_min: Fewest inputs in an opened sum; by default 3, or n where there are fewer.
            owners: Who contributes, where that is not everybody (sharing).
            compress: Whether shares are compressed to seeds (sharing).

        Raises:
            PlanError: The settings do not fit together.
        """
        n = len(owners) or len(roster.names)
        most = default_colluders(n) if colluders is None else colluders
        least = min(3, n) if n_min is None else n_min
        if scheme == "sharing":
            c, size, left = len(receivers), len(roster.names), max(0, n - max(least, most + 2))
            if not 2 <= c <= size:
                raise PlanError(f"shares need 2 to {size} compute parties, found {tuple(receivers)}")
            return cls(
                *(scheme, roster.hash, size, tuple(receivers), encoding, most, least, c, c, "complete", c - 1, left),
                owners=tuple(owners),
                compress=compress,
            )
        signers = quorum(n, most)
        # Whatever is left after so many dropouts still signs, counts, and hides two honest inputs.
        dropouts = max(0, n - max(signers, least, most + 2))
        thresholds = (most, least, signers, signers)
        head = (scheme, roster.hash, n, tuple(receivers), encoding, *thresholds)
        return cls(*head, degree=n - 1, dropouts=dropouts)

    @cached_property
    def hash(self) -> bytes:
        """SHA-256 of the canonical bytes."""
        return digest("config-hash", self.encode())

    @cached_property
    def contributors(self) -> int:
        """How many parties contribute: the whole roster, or its owners in sharing."""
        return len(self.owners) or self.parties

    @property
    def least_members(self) -> int:
        """Fewest members of a view: at least n_min, a quorum, and two more than may collude."""
        if self.scheme == "plain":
            return 1
        # At least two honest inputs are in every sum that T colluders see: one alone would be read off.
        if self.scheme == "sharing":  # there every compute party signs, whoever contributes
            return max(self.n_min, self.colluders + 2)
        return max(self.n_min, self.t_sig, self.colluders + 2)

    def with_timeouts(self, set_up: int, rounds: int) -> Config:
        """Returns a copy with other deadlines, milliseconds."""
        return replace(self, set_up_timeout=set_up, round_timeout=rounds)

    def encode(self) -> bytes:
        """Returns canonical bytes."""
        thresholds = (self.colluders, self.n_min, self.t_sig, self.t_share)
        graph = (self.graph, self.degree, self.dropouts, self.batch)
        receivers = enc_list("receivers", self.receivers)
        times = (self.set_up_timeout, self.round_timeout)
        head = (self.scheme, self.suite, self.roster, self.parties, receivers, self.encoding.encode())
        tail = (enc_list("owners", self.owners), int(self.compress)) if self.scheme == "sharing" else ()
        return enc("config", *head, *thresholds, *graph, *times, NO_PRIVACY, *tail)

    @classmethod
    def decode(cls, data: bytes) -> Config:
        """Parses canonical bytes.

        Raises:
            EncodingError: They are not a Config's bytes, or its settings do not fit together.
        """
        schema: tuple[FieldKind, ...] = (str, str, HASH_BYTES, int, bytes, bytes, int, int, int, int)
        schema += (str, int, int, int, int, int, bytes)
        if data[:4] == (len(schema) + 3).to_bytes(4, "big"):  # label, fields, and the two of sharing
            # Two lengths, not a version field: a Config of the other schemes has the bytes it always had.
            *fields, listed, compress = dec("config", data, (*schema, bytes, int))
            owners = tuple(dec_list("owners", listed, str, MOST_PARTIES))
        else:
            fields, owners, compress = dec("config", data, schema), (), 1
        scheme, suite, roster, parties, receivers, encoding, *rest, privacy = fields
        if privacy != NO_PRIVACY:
            raise EncodingError("config: it claims privacy noise, which this version does not have")
        names = tuple(dec_list("receivers", receivers, str, MOST_PARTIES))
        made = _made(
            cls, scheme, roster, parties, names, Encoding.decode(encoding), *rest, suite, owners, compress == 1
        )
        # One record, one spelling: else two parties could hash "the same" Config to two session ids.
        if made.encode() != data:
            raise EncodingError("config: these are not the bytes of the settings they state")
        return made


def default_colluders(parties: int) -> int:
    """Returns T for so many parties: max(1, floor((n - 1) / 3)), or 0 below three."""
    return max(1, (parties - 1) // 3) if parties >= 3 else 0


def _made(cls: type[Record], *values: Any) -> Record:
    """Returns the record, with a refusal of its settings as a decoder's error."""
    try:
        return cls(*values)
    except PlanError as error:
        raise EncodingError(f"{cls.__name__}: {error}") from None
