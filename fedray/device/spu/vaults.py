# SPDX-License-Identifier: Apache-2.0
"""Vaults: the driver's side of one SPU in one session.

A vault is the service in a party that shares out values and keeps shares. Knows the vaults' keys, and no value.
"""

from __future__ import annotations

import weakref
from typing import Any

from fedray.device.spu.definition import Cluster
from fedray.party.spu.vault import Vault
from fedray.protocol.config import Config, Encoding
from fedray.protocol.crypto.keys import Roster
from fedray.protocol.policy import Demands
from fedray.runtime.session import Session
from fedray.types import Key, PartyName, Ref


class Vaults:
    """The vaults of one SPU in one session, one per party.

    Args:
        cluster: The SPU's definition.
        session: The running session.
        bound: As in `SPU`.
        compress: As in `SPU`.

    Raises:
        PlanError: A compute party is not in the session.
        ProtocolError: The parties could not agree on keys.
    """

    def __init__(self, cluster: Cluster, session: Session, bound: float | None, compress: bool) -> None:
        for party in cluster.parties:
            session.check(party)
        self.cluster, self.session, self._ready = cluster, session, False
        names = list(session.roster)
        # One in every party of the session, not only at the compute parties: any party may own a value to share.
        self.keys: dict[PartyName, Key] = {party: session.serve(party, Vault, cluster.layout, bound) for party in names}
        for party, key in self.keys.items():
            # With the SPU go its vaults, and with them the shares that they keep.
            weakref.finalize(self, session.release, party, key)
        roster = Roster.of(session.roster)
        # What all parties together ask for. Each checks the proposal by itself, so a driver that asked for less would
        # be refused.
        demands = Demands.of(session.policies.values(), len(roster.names))
        asked, least = (roster, cluster.parties, Encoding()), (demands.colluders, demands.n_min)
        config = Config.propose("sharing", *asked, colluders=least[0], n_min=least[1], compress=compress)
        # Three steps, each complete before the next: keys are exchanged, then confirmed, then used. In between every
        # party checks what the others signed.
        hellos = session.get([self.ask(party, "hello", "spu", config.encode(), names) for party in names])
        confirms = session.get([self.ask(party, "confirm", "spu", hellos) for party in names])
        session.get([self.ask(party, "start", "spu", confirms, self.keys) for party in names])

    def prepare(self) -> None:
        """Lets the compute parties load what runs programs; does so once.

        Raises:
            PlanError: The extra is not installed at one of them.
        """
        # Once a session: to load the programs' runtime takes seconds, and only `spu(fn)` needs it.
        if not self._ready:
            self.session.get(self.ask_compute_parties("prepare", "spu", self.cluster.runtime))
            self._ready = True

    def ask(self, party: PartyName, method: str, name: str, *args: Any) -> Ref:
        """Asks one party's vault, under a statement of the given name.

        Args:
            party: Whom to ask.
            method: A public method of its vault.
            name: What the ledger calls the statement.
            *args: The method's arguments.
        """
        return self.session.ask(party, self.keys[party], method, *args, label=self.session.statement(name))

    def ask_compute_parties(self, method: str, name: str, *args: Any) -> list[Ref]:
        """Asks every compute party's vault the same, under one statement.

        Args:
            method: A public method of the vaults.
            name: What the ledger calls the statement.
            *args: The method's arguments, the same for all.
        """
        label = self.session.statement(name)
        return [self.session.ask(party, self.keys[party], method, *args, label=label) for party in self.cluster.parties]
