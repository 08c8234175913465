# SPDX-License-Identifier: Apache-2.0
"""Household: what a party has in hand when it starts: its configuration in force, its credentials, its turn.

Or why it must refuse every call: a party whose key folder or `party.toml` is not as it should be starts, so that it can
say so.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fedray.party.house.in_force import InForce
from fedray.party.house.turns import Turn, home
from fedray.party.keys.credentials import Credentials
from fedray.types import PartyConfig

CHECKPOINTS = "checkpoints"
"""In the key folder: the party's parts of checkpoints, where its operator names no other place."""


class Household:
    """What one party has in hand, until `close`.

    Args:
        config: What the driver tells it.
        refusal: Why it must refuse every call, where something failed before.

    Attributes:
        config: What is in force.
        own: Its credentials; made up where it refuses.
        told: What the driver is told of its operator's rules; None where there are none.
        parts: Where its parts of checkpoints lie; None where that is left to the driver.
        refusal: Why it must refuse every call, or None.
    """

    def __init__(self, config: PartyConfig, refusal: Exception | None = None) -> None:
        self.config, self.refusal = config, refusal
        self.told: dict[str, Any] | None = None
        self.parts: Path | None = None
        self._turn: Turn | None = None
        self.own = Credentials.made_up()
        try:
            if refusal is None:
                self._move_in(config)
        except Exception as error:  # whatever it is, the party must not go on with other keys
            # Kept and told in answer to every call. Raised here it would end the process, and the user would read that
            # a party was lost and not why.
            self.refusal = error
            self.close()

    def close(self) -> None:
        """Lets go of the party's files."""
        self.own.close()
        if self._turn is not None:
            self._turn.close()

    def _move_in(self, config: PartyConfig) -> None:
        found = InForce.of(config)
        self.config, self.told = found.config, found.told()
        # Without a party.toml there is no operator who has said how many sessions there may be.
        if found.rules is not None:
            # Before the key folder, which another session has locked as well, and which waits longer for it.
            folder = home(found.environment) / "sessions"
            self._turn = Turn(config.name, found.rules.sessions, config.session, folder)
        self.own = Credentials.of(found.config, found.environment)
        if found.rules is not None and found.rules.checkpoints is not None:
            self.parts = Path(os.path.expanduser(found.rules.checkpoints))
        elif self.own.folder is not None:
            self.parts = self.own.folder / CHECKPOINTS
