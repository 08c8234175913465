# SPDX-License-Identifier: Apache-2.0
"""What users are told about the protection they have, in the protocol's own words and once per session."""

from __future__ import annotations

import logging
from weakref import WeakKeyDictionary

from fedray.protocol.config import Config
from fedray.protocol.policy import notice
from fedray.runtime.session import Session

_log = logging.getLogger("fedray")
# Weak, so that a session that has ended is not kept alive by what it was told.
_told: WeakKeyDictionary[Session, set[str]] = WeakKeyDictionary()


def notices_of(config: Config | None) -> tuple[str, ...]:
    """Returns what is to be told about sums under a Config."""
    text = None if config is None else notice(config)
    return () if text is None else (text,)


def unsaid(session: Session, config: Config | None) -> tuple[str, ...]:
    """Returns what has not been told yet in this session. It counts as told from here on: the caller tells it."""
    known = _told.setdefault(session, set())
    fresh = tuple(text for text in notices_of(config) if text not in known)
    # Once a session: a warning at every sum would soon be read by nobody.
    known.update(fresh)
    return fresh


def log_unsaid(session: Session, config: Config | None) -> None:
    """Warns of what has not been told yet, by the `fedray` logger."""
    for text in unsaid(session, config):
        _log.warning(text)
