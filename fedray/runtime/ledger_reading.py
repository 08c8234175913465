# SPDX-License-Identifier: Apache-2.0
"""Reading the parties' ledgers, part by part. Knows no session and no transport."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from fedray.errors import PartyLost
from fedray.party.door.journal import LedgerPart
from fedray.party.door.ledger_page import LedgerPage
from fedray.types import PartyName, Ref


def read_pages(
    parties: Sequence[PartyName],
    ask: Callable[[PartyName, int | None], Ref],
    get: Callable[[Ref, float | None], Any],
    *,
    entries: bool,
    timeout: float | None,
) -> dict[PartyName, LedgerPage]:
    """Returns the page of every party that has not ended.

    Args:
        parties: Whose.
        ask: (party, number of the first entry wanted, None for totals alone) -> the call to it.
        get: (call, seconds or None) -> its `LedgerPart`.
        entries: Whether each entry is wanted.
        timeout: Seconds in all, or None.

    Raises:
        PartyTimeout: `timeout` seconds passed.
        FedRayError: What a party refused with.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    # All are asked before the first answer is awaited.
    asked = {party: ask(party, 0 if entries else None) for party in parties}
    pages: dict[PartyName, LedgerPage] = {}
    for party, ref in asked.items():
        with contextlib.suppress(PartyLost):
            pages[party] = _page(partial(ask, party), ref, get, entries, deadline)
    return pages


def _page(
    ask: Callable[[int], Ref], ref: Ref, get: Callable[[Ref, float | None], Any], entries: bool, deadline: float | None
) -> LedgerPage:
    lines: list[bytes] = []
    while True:
        part: LedgerPart = get(ref, None if deadline is None else max(0.0, deadline - time.monotonic()))
        lines += part.lines.split(b"\n") if part.lines else []
        if part.head is not None:
            return LedgerPage(part.head, lines if entries else None)
        # A party that goes on working adds to its ledger meanwhile; the next part begins where this one ended.
        ref = ask(len(lines))
