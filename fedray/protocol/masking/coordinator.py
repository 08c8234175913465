# SPDX-License-Identifier: Apache-2.0
"""The server's side of one session of the schemes with one exchange a round: it makes their collectors. No keys."""

from __future__ import annotations

from collections.abc import Sequence

from fedray.errors import ProtocolError
from fedray.protocol.config import Config
from fedray.protocol.crypto.buffers import BufferPool
from fedray.protocol.crypto.keys import Roster
from fedray.protocol.manifest import Manifest
from fedray.protocol.masking.collector import ViewCollector
from fedray.protocol.scheme import Collector, View
from fedray.types import PartyName, Round


class ViewCoordinator:
    """The server's side of schemes with one exchange a round."""

    recovers = False

    def __init__(
        self,
        config: Config,
        roster: Roster,  # noqa: ARG002 (one signature for all schemes)
        hellos: Sequence[bytes],  # noqa: ARG002
        confirms: Sequence[bytes],  # noqa: ARG002
    ) -> None:
        """Takes what is agreed.

        Args:
            config: Agreed settings.
            roster: Not needed: names are checked by the transport.
            hellos: Not needed: nothing is derived from them here.
            confirms: Not needed, likewise.
        """
        self._config = config
        self._sums = BufferPool()

    def collector(self, view: View, number: Round, manifest: Manifest) -> Collector:
        """Returns the summing end of one round.

        Args:
            view: Whose vectors are summed.
            number: The round.
            manifest: What the words mean.
        """
        return ViewCollector(self._config, view, number, manifest, self._sums)

    def check_view(self, members: Sequence[PartyName]) -> None:
        """Checks that these parties may go on without the others.

        Raises:
            ProtocolError: They are too few.
        """
        least = self._config.least_members
        if len(members) < least:
            found = ", ".join(members) or "nobody"
            raise ProtocolError(f"{found} cannot go on without the others: a sum needs at least {least} parties here")
