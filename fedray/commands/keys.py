# SPDX-License-Identifier: Apache-2.0
"""`fedray keys`: makes a party's identity key, shows it, and builds the roster of those whose keys it was given.

Runs on a party's own machine and knows no session. Prints public keys and fingerprints, never a private one.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from fedray.errors import PlanError
from fedray.party.keys import key_folder
from fedray.party.keys.key_folder import ROSTER, new_identity, read_identity, read_policy, read_public, read_roster
from fedray.party.keys.own_files import real_folder
from fedray.party.whole_file import replace_file
from fedray.protocol.crypto.keys import Roster, fingerprint, public_bytes
from fedray.types import PartyName

COMPARE = (
    "Compare each fingerprint with its party by phone, or in person: whoever sent you a key may have put it there."
)


def add_arguments(commands: Any) -> None:
    """Adds `keys` and what follows it to the command line.

    Args:
        commands: What `argparse` calls the sub-parsers' action.
    """
    keys = commands.add_parser(
        "keys",
        help="make and show a party's identity key, and build its roster",
        description="Identity keys that outlast a session. Each party makes its own key on its own machine, gives "
        "NAME.pub to the others, builds its own roster of theirs, and compares fingerprints with them. Then "
        "sf.init(..., keys=...) names the folders, and a party refuses keys that are not those of its roster.",
    )
    actions = keys.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = actions.add_parser(
        "new",
        help="make a party's identity key",
        description="Makes DIR/identity.key, which only its owner may read, and DIR/NAME.pub, to be given to every "
        "other party. A key that is there is never overwritten.",
    )
    new.add_argument("name", metavar="NAME", help="the party's name, as in sf.init")
    new.add_argument("--dir", type=Path, required=True, metavar="DIR", help="the party's own folder; made if not there")
    show = actions.add_parser(
        "show",
        help="show a party's public key and whom it knows",
        description="Shows the public key of a folder, its fingerprint, those in its roster, and its policy.",
    )
    show.add_argument("folder", type=Path, metavar="DIR")
    roster = actions.add_parser(
        "roster",
        help="build or extend a roster from public keys",
        description="Writes the names and public keys in FILE... to a roster, beside those that it holds already. With "
        "--dir that is DIR/roster.json, and the folder's own public key is put in, too. Another key for a name that is "
        "in the roster is refused.",
    )
    roster.add_argument("files", type=Path, nargs="+", metavar="FILE", help="NAME.pub, as 'fedray keys new' made it")
    place = roster.add_mutually_exclusive_group(required=True)
    place.add_argument("--dir", type=Path, metavar="DIR", help="the party's own folder")
    place.add_argument("--out", type=Path, metavar="FILE", help="a roster file anywhere, e.g. to check ledgers with")


def run(options: argparse.Namespace) -> int:
    """Runs one of the commands and returns its exit code.

    Raises:
        PlanError: A file is not as it should be; the message says what to do.
        OSError: A file cannot be written.
    """
    actions = {"new": _new, "show": _show, "roster": _roster}
    actions[options.action](options)
    return 0


def _new(options: argparse.Namespace) -> None:
    public = new_identity(options.dir, options.name)
    print(f"made {options.dir / key_folder.IDENTITY}, which stays here, and {public}, for every other party")
    print(f"{options.name}: fingerprint {fingerprint(read_public(public)[1])}")


def _show(options: argparse.Namespace) -> None:
    folder: Path = options.folder
    name, key = _own(folder)
    print(f"{name}: public key {key.hex()}\n{name}: fingerprint {fingerprint(key)}")
    if os.path.lexists(folder / ROSTER):
        print()
        _print_roster(folder / ROSTER, read_roster(folder / ROSTER))
    else:
        print(f"\nno {ROSTER}: build it with 'fedray keys roster FILE... --dir {folder}'")
    policy = read_policy(folder)
    stated = None if policy is None else ", ".join(f"{k}={v!r}" for k, v in policy.settings().items())
    print(f"\npolicy: {stated or f'no {key_folder.POLICY}; the default, unless the driver states one'}")


def _roster(options: argparse.Namespace) -> None:
    target: Path = options.out or options.dir / ROSTER
    # The folder before anything in it, as a party does.
    own = [] if options.dir is None else [_own(options.dir)]
    known: dict[PartyName, bytes] = {}
    if os.path.lexists(target):
        there = read_roster(target)
        known = dict(zip(there.names, there.keys, strict=True))
    given = [read_public(path) for path in options.files] + own
    for name, key in given:
        # Never replaced in silence: a second key for a name is what an attacker would send.
        if known.setdefault(name, key) != key:
            raise PlanError(
                f"two keys for {name!r}, with fingerprints {fingerprint(known[name])} and {fingerprint(key)}; nothing "
                f"was written. Ask {name} which one is right. If its key is new, remove {target} and build it again"
            )
    replace_file(target, key_folder.written_roster(known), 0o644)
    # Read back from the disk: what is shown is what the party will use.
    _print_roster(target, read_roster(target))
    print(f"\n{COMPARE}")


def _own(folder: Path) -> tuple[PartyName, bytes]:
    """Returns the name and the public key of a folder, after a look at both halves of the key."""
    folder = real_folder(folder, "'fedray keys new' makes a key folder")
    key = public_bytes(read_identity(folder))
    named = [read_public(path, own=True) for path in sorted(folder.glob("*.pub"))]
    # The public file must be the private key's own half, or a party would hand out a key that it cannot sign with.
    mine = [name for name, public in named if public == key]
    if len(mine) != 1:
        raise PlanError(f"{folder}: expected one .pub file with the public half of its key, found {len(mine)}")
    return mine[0], key


def _print_roster(path: Path, roster: Roster) -> None:
    print(f"{path}: {len(roster.names)} parties, roster fingerprint {roster.hash.hex()}")
    for name, key in zip(roster.names, roster.keys, strict=True):
        # The fingerprint first: after a name in a script that runs from right to left, a terminal may set its groups of
        # digits in that order, too.
        print(f"  {fingerprint(key)}  {name}")
