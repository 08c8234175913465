# SPDX-License-Identifier: Apache-2.0
"""How long a party is called again that does not answer, and when it counts as gone. Pure: time is a number here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

REFUSED_SECONDS = 3.0
"""A machine that is there and refuses for so long has no such party any more, or another one in its place."""

UNREACHED_SECONDS = 30.0
"""Whom nobody has reached yet is given up after so long: a firewall that drops what it should let in says nothing."""

SILENT_SECONDS = 3600.0
"""Who was reached before is called for so long, which no deadline of a round is meant to exceed. Nobody waits for it
meanwhile: the server goes by its own deadline, and tells whoever comes later what was decided without it."""

_FIRST_WAIT, _LONGEST_WAIT = 0.05, 1.0


class Trouble(Enum):
    """What has become of a try."""

    CUT = "the connection was cut"
    SILENT = "nothing answers"
    REFUSED = "it is refused"


@dataclass(slots=True)
class Redial:
    """The tries of one exchange.

    Args:
        reached: Whether the other end was ever reached before.
    """

    reached: bool
    refused_since: float | None = None
    silent_since: float | None = None
    wait: float = 0.0

    def opened(self) -> None:
        """Says that a connection was opened; the other end may still hang up on whom it does not know."""
        self.reached = True

    def heard(self) -> None:
        """Says that something has come from the other end."""
        self.reached, self.silent_since = True, None
        # Not at once again: who says a word and hangs up, each time, would be dialled without a pause for ever.
        self.refused_since, self.wait = None, min(self.wait, _FIRST_WAIT)

    def failed(self, trouble: Trouble, now: float) -> float | None:
        """Returns how many seconds to wait before the next try, or None where it is to be given up.

        Args:
            trouble: What has become of the last try.
            now: When.
        """
        self.silent_since = now if self.silent_since is None else self.silent_since
        if trouble is not Trouble.REFUSED:
            self.refused_since = None  # as a machine that starts again: it was away between two refusals
        elif self.refused_since is None:
            self.refused_since = now
        if self.refused_since is not None and now - self.refused_since >= REFUSED_SECONDS:
            return None
        if now - self.silent_since >= (SILENT_SECONDS if self.reached else UNREACHED_SECONDS):
            return None
        # At once at first: a connection that was idle for long may be gone while all is well.
        wait, self.wait = self.wait, min(max(2 * self.wait, _FIRST_WAIT), _LONGEST_WAIT)
        return wait
