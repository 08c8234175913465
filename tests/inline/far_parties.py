# SPDX-License-Identifier: Apache-2.0
"""Parties of one process that talk as if each had a machine of its own: over TCP and TLS, by their identity keys."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from fedray.runtime.far.calling import Address
from fedray.runtime.inline import InlineTransport
from fedray.runtime.lined import LinedCalls, Whereabouts
from fedray.types import PartyConfig


def talk_over_tls(
    monkeypatch: pytest.MonkeyPatch, by_way_of: Callable[[str, Address], Address] = lambda _, address: address
) -> None:
    """Has the parties of every inline session from here on send their messages over lines between nodes.

    Args:
        monkeypatch: Puts things back.
        by_way_of: (party, its address) -> where the others call it.
    """
    start, stop = InlineTransport.start, InlineTransport.stop
    opened: list[LinedCalls] = []

    def started(transport: InlineTransport, parties: Mapping[str, PartyConfig]) -> None:
        start(transport, parties)
        places, calls = {}, {}
        for name, host in transport._hosts.items():
            party = host._party
            lined = calls[name] = LinedCalls(
                name, party._calls, lambda *message, to=party.handle: to("deliver", *message), party.fail
            )
            lined._near = None
            lined.open_far(party.line_keys(), lambda: "127.0.0.1")
            place = lined.whereabouts(name)
            places[name] = Whereabouts(name, "", by_way_of(name, place.far))
            object.__setattr__(party._context, "_calls", lined)
            party._calls, party._handed = lined, lined.handed
            party.handle = _handling(party.handle, lined)
        for lined in calls.values():
            lined.connect(places)
        opened.extend(calls.values())

    def stopped(transport: InlineTransport) -> None:
        stop(transport)
        while opened:
            opened.pop()._far.close()

    monkeypatch.setattr(InlineTransport, "start", started)
    monkeypatch.setattr(InlineTransport, "stop", stopped)


def _handling(handle: Callable[..., Any], lined: LinedCalls) -> Callable[..., Any]:
    return lambda method, *args: lined.delivered(*args) if method == "deliver" else handle(method, *args)
