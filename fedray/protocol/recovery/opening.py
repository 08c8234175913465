# SPDX-License-Identifier: Apache-2.0
"""R4: from shares to secrets to pads, and the sum without them.

Knows which share each holder owes, and what every secret was committed to. Does not know single inputs: self masks of
survivors and pair pads with dropped parties are all it can take away.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedray.errors import ProtocolError
from fedray.protocol.crypto.keys import Guarded, public_bytes
from fedray.protocol.crypto.keystream import Pad
from fedray.protocol.crypto.shamir import recover
from fedray.protocol.messages import Words
from fedray.protocol.opened import OpenedSum
from fedray.protocol.pipeline import run
from fedray.protocol.recovery.pads import PadScope, self_commitment
from fedray.protocol.recovery.round_messages import PAIR, SELF, Survivors, Unmask
from fedray.protocol.recovery.round_public import RoundPublic


class Opening(Guarded):
    """Shares of one round at the server.

    Attributes:
        holders: Whose shares have come.
        faulty: Place in the roster -> what is wrong with its shares; filled in by `open`.
    """

    def __init__(self, public: RoundPublic, survivors: Survivors) -> None:
        self.holders: set[int] = set()
        self.faulty: dict[int, str] = {}
        self._public, self._survivors = public, survivors
        graph = public.thresholds.graph
        self._around = [graph.neighbours(public.ring, i) for i in range(graph.parties)]
        self._shares: dict[int, dict[int, bytes]] = {i: {} for i in range(graph.parties)}

    def add(self, unmask: Unmask) -> None:
        """Takes one holder's shares; the same ones again change nothing.

        Raises:
            ProtocolError: They are not one share of each owner of the kind that the survivors imply, or differ from
                what the holder sent before.
        """
        holder, members = unmask.index, self._survivors.members
        owners = tuple(sorted((*self._around[holder], holder)))
        # The kinds follow from the survivors: a holder that sends another one gives away what it must not.
        kinds = bytes(SELF if owner in members else PAIR for owner in owners)
        if unmask.owners != owners or unmask.kinds != kinds:
            raise ProtocolError("its shares are not one of each neighbour, of the kind that the survivors imply")
        given = dict(zip(owners, unmask.shares, strict=True))
        if holder in self.holders:
            if any(self._shares[owner][holder + 1] != share for owner, share in given.items()):
                raise ProtocolError("it sent other shares before")
            return
        self.holders.add(holder)
        for owner, share in given.items():
            self._shares[owner][holder + 1] = share

    def check(self) -> None:
        """Checks that every secret that is needed has enough shares.

        Raises:
            ProtocolError: One has not.
        """
        least, number = self._public.thresholds.graph.share_threshold, self._public.number
        for owner, shares in self._shares.items():
            if len(shares) < least:
                name = self._public.roster.names[owner]
                raise ProtocolError(
                    f"round {number} is aborted: {len(shares)} shares of {name}'s secret, expected at least {least}"
                )

    def open(self, total: Words, check: int) -> OpenedSum:
        """Takes the pads away, in place, and returns the sum.

        Args:
            total: uint32[L] or uint64[L], sum of the survivors' masked words; it is overwritten.
            check: Sum of their masked checks.

        Raises:
            ProtocolError: A secret does not match what was committed to, or the sum is noise.
        """
        public, survivors = self._public, self._survivors
        bits = public.config.encoding.ring
        scope = PadScope(public.sid, public.directory.digest, public.number, survivors.ctx, len(total), bits)
        plus, minus = list[bytes](), list[bytes]()
        for member in survivors.members:
            minus.append(scope.self_key(self._secret(member, self._is_seed), member))
        for dropped in sorted(set(self._shares) - set(survivors.members)):
            private = X25519PrivateKey.from_private_bytes(self._secret(dropped, self._is_private))
            neighbours = sorted(set(self._around[dropped]).intersection(survivors.members))
            keys = scope.pair_keys(private, public.directory.publics(neighbours, public.number), dropped)
            # The member added the pad where its index is the lower one.
            minus += [key for member, key in keys.items() if member < dropped]
            plus += [key for member, key in keys.items() if member > dropped]
        # One pass for all pads: the total is read and written once, whoever dropped out.
        pad = Pad(plus, minus)
        run(total, pad.apply)
        names = tuple(public.roster.names[i] for i in survivors.members)
        opened = OpenedSum(total, names, pad.cover(check))
        opened.check_count()
        return opened

    def _secret(self, owner: int, valid: Callable[[int, bytes], bool]) -> bytes:
        public, name = self._public, self._public.roster.names[owner]
        # Who sent one wrong share is not believed for the next secret, as long as enough others are.
        trusted = {x: share for x, share in self._shares[owner].items() if x - 1 not in self.faulty}
        least = public.thresholds.graph.share_threshold
        shares = trusted if len(trusted) >= least else self._shares[owner]
        try:
            secret, wrong = recover(shares, least, partial(valid, owner))
        except ProtocolError as error:
            raise ProtocolError(f"round {public.number} is aborted: the secret of {name} is lost: {error}") from None
        for place in wrong:
            self.faulty[place - 1] = f"its share of {name}'s secret is wrong"
        return secret

    def _is_seed(self, owner: int, secret: bytes) -> bool:
        public = self._public
        return self_commitment(public.sid, public.number, owner, secret) == public.directory.commitment(
            owner, public.number
        )

    def _is_private(self, owner: int, secret: bytes) -> bool:
        found = public_bytes(X25519PrivateKey.from_private_bytes(secret))
        return found == self._public.directory.public(owner, self._public.number)
