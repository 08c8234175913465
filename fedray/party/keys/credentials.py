# SPDX-License-Identifier: Apache-2.0
"""Credentials: who a party is, whom it knows, what it accepts and what it remembers; all of it its own.

Put together once, at the party's start: from its key folder, or made up where there is none. Knows where the folder
is. Does not know how its files are written, nor what anything is used for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedray.errors import PlanError
from fedray.party.door.commitment import Commitments
from fedray.party.keys.key_folder import (
    IDENTITY,
    LEDGERS,
    MODELS,
    POLICY,
    ROSTER,
    read_identity,
    read_policy,
    read_roster,
    replay_key,
)
from fedray.party.keys.ledger_log import LedgerLog
from fedray.party.keys.memory_file import PATIENCE, MemoryFile
from fedray.party.keys.own_files import real_folder
from fedray.protocol.crypto.keys import Guarded, Roster, fingerprint, generate_identity, public_bytes
from fedray.protocol.crypto.names import check_name
from fedray.protocol.memory import ModelMemory
from fedray.protocol.policy import Policy
from fedray.types import PartyConfig, PartyName

VARIABLE = "FEDRAY_KEYS"
"""Set where a party's process starts, it says where the machine's operator keeps keys: one folder, or a folder with one
per party. The driver cannot name another one then."""


class Credentials(Guarded):
    """A party's own identity, roster, policy and memory.

    Args:
        identity: Its Ed25519 key.
        policy: What it accepts of sums.
        roster: The keys that its operator knows everybody by.
        folder: Its key folder; None where it has none.
        file: Its memory of models; None for one that ends with the process.
        log: Where its ledger is written as it grows; None for memory only.
        replay: Its key for commitments to contributions; None for one that ends with the process.

    Attributes:
        identity: Its Ed25519 key.
        roster: The keys that its operator knows everybody by; None where the driver's have to do.
        policy: What it accepts.
        memory: Which model it served with whom.
        commitments: To what it contributes to sums.
        keep: Writes a line of its ledger to its own disk; None where it has no folder.
        folder: Its key folder, free of links; None where it has none.
    """

    def __init__(
        self,
        identity: Ed25519PrivateKey,
        policy: Policy,
        roster: Roster | None = None,
        folder: Path | None = None,
        file: MemoryFile | None = None,
        log: LedgerLog | None = None,
        replay: bytes | None = None,
    ) -> None:
        self.identity, self.policy, self.roster = identity, policy, roster
        self.memory = ModelMemory() if file is None else file.memory
        self.commitments = Commitments(replay)
        self.keep = None if log is None else log.write
        self.folder, self._file, self._log = folder, file, log

    @classmethod
    def made_up(cls, policy: Policy | None = None) -> Credentials:
        """Returns a new identity that knows nobody and remembers nothing."""
        return cls(generate_identity(), policy or Policy())

    @classmethod
    def of(
        cls,
        config: PartyConfig,
        environment: Mapping[str, str] | None = None,
        patience: float = PATIENCE,
        *,
        looking: bool = False,
    ) -> Credentials:
        """Returns the credentials of a party that starts.

        Args:
            config: What the driver tells it.
            environment: Variables of its process; None for those of this one.
            patience: Seconds to wait while another process uses the folder.
            looking: Whether no party starts and the folder is only looked at: then no file of the ledger is begun.

        Raises:
            PlanError: The name is none, the folder is not as it should be, or the driver asks for what its operator has
                ruled out.
        """
        # First: a name such as "/tmp/x" or ".." would lead out of the folder that the operator has chosen.
        check_name(config.name)
        folder = _folder(config, os.environ if environment is None else environment)
        stated = None if config.policy is None else Policy.of(config.policy)
        if folder is None:
            return cls.made_up(stated)
        # The folder before its files: where others may put files in, the right file proves nothing.
        folder = real_folder(folder, "put it back from your backup, or make a key with 'fedray keys new'")
        identity, roster, own = read_identity(folder), read_roster(folder / ROSTER), read_policy(folder)
        # Refused even where the two agree: a driver that may state what the file says today could state more tomorrow,
        # and nobody would notice.
        if own is not None and stated is not None:
            raise PlanError(
                f"{folder / POLICY} states this party's policy, and the driver stated one, too; only the party's own "
                f"counts. Leave {config.name!r} out of the argument policies"
            )
        _check_own(config.name, identity, roster, folder)
        try:
            # Late, since it locks the folder: what fails before this leaves no lock behind.
            file = MemoryFile(folder / MODELS, config.name, patience)
        except OSError as error:
            raise PlanError(f"{folder / MODELS} cannot be used: {error.strerror}") from None
        try:
            replay, log = replay_key(folder), None
            if not looking:
                log = LedgerLog(folder / LEDGERS, config.name, identity)
            elif os.path.lexists(folder / LEDGERS):
                real_folder(folder / LEDGERS)
        except BaseException as error:
            file.close()
            if not isinstance(error, OSError):
                raise
            raise PlanError(f"{error.filename or folder} cannot be used: {error.strerror}") from None
        return cls(identity, own or stated or Policy(), roster, folder, file, log, replay)

    def check(self, keys: Mapping[PartyName, bytes]) -> None:
        """Checks the keys that the driver hands out against the roster of this party's operator, if there is one.

        Parties of the roster that take no part in this session are left out of the driver's keys, which is no fault.

        Raises:
            PlanError: A key is another one, or of a party that the roster does not name.
        """
        differences = [] if self.roster is None else self.roster.differences(keys)
        if differences:
            raise PlanError(
                f"the keys that the driver hands out are not those of {self.folder}/{ROSTER}: "
                f"{'; '.join(differences)}. No sum is begun. Ask the party named for its fingerprint by a way that the "
                "driver does not control ('fedray keys show' tells it there). If its key is a new one, build the "
                "roster again with 'fedray keys roster'; if not, somebody has put a key of their own in its place"
            )

    @property
    def unwritten(self) -> str:
        """Why this party's ledger is no longer written to its disk; empty while it is, or where it has no folder."""
        return "" if self._log is None else self._log.failure

    def close(self) -> None:
        """Lets another process use the folder."""
        if self._log is not None:
            self._log.close()
        if self._file is not None:
            self._file.close()


def _folder(config: PartyConfig, environment: Mapping[str, str]) -> Path | None:
    named = Path(os.path.expanduser(config.keys)) if config.keys else None
    if VARIABLE not in environment:
        return named
    kept = Path(os.path.expanduser(environment[VARIABLE]))
    # Empty as well: whoever set it wanted a folder, and no other one may stand in its place.
    if not kept.is_absolute():
        raise PlanError(
            f"{VARIABLE} is {environment[VARIABLE]!r}; expected an absolute path, or one below a home (~). Unset it "
            "where the driver is to name the folder"
        )
    # The variable may name the folder itself, where a machine has one party, or the folder above those of several.
    # One that has lost its key is still the party's own, and not a folder above one that never was.
    own = os.path.lexists(kept / IDENTITY) or (
        os.path.lexists(kept / ROSTER) and not os.path.lexists(kept / config.name)
    )
    folder = kept if own else kept / config.name
    # Refused and not overruled in silence: the driver's user believes that the other folder is used.
    if named is not None and named.resolve() != folder.resolve():
        raise PlanError(
            f"this party's machine keeps its keys in {folder} ({VARIABLE}), the driver named {named}. Leave the "
            "argument keys out, or name that folder"
        )
    return folder


def _check_own(name: PartyName, identity: Ed25519PrivateKey, roster: Roster, folder: Path) -> None:
    mine = fingerprint(public_bytes(identity))
    if name not in roster.names:
        raise PlanError(f"{folder / ROSTER} does not name this party; add its own public key with 'fedray keys roster'")
    listed = fingerprint(roster.keys[roster.index(name)])
    if listed != mine:
        raise PlanError(
            f"{folder / ROSTER} lists the key with fingerprint {listed} for this party, but its own {IDENTITY} has "
            f"{mine}. Is this the folder of another party? Else build the roster again with 'fedray keys roster'"
        )
