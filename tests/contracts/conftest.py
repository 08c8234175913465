# SPDX-License-Identifier: Apache-2.0
"""Short ways to work below the notation of devices, and a service whose messages can be held back."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedray.party.context import Reply
from fedray.party.door.egress import Kind
from fedray.party.parcel import pack
from fedray.runtime.session import current


@pytest.fixture
def make() -> Callable[..., str]:
    """Returns (party, function, *args) -> key of the result in that party."""

    def run(party: str, function: Callable[..., Any], *args: Any) -> str:
        key = current().new_key()
        current().call(party, "run", (key,), pack((function, args, {})))
        return key

    return run


@pytest.fixture
def value() -> Callable[[str, str], Any]:
    """Returns (party, key) -> the value."""
    return lambda party, key: current().get([current().call(party, "export", key, "driver")], 30)[0]


@pytest.fixture
def gate_class() -> type[Any]:
    """Returns a service that holds back whoever delivers to it until enough have, and answers with the sum.

    Made in a function, so that it travels to a party with its code.
    """

    class Gate:
        def __init__(self, context, awaited=1):
            self.context, self.awaited = context, awaited
            self.changed, self.got = threading.Condition(), {}

        def deliver(self, sender, message):
            with self.changed:
                self.got[sender] = message
                self.changed.notify_all()
                self.changed.wait_for(lambda: len(self.got) >= self.awaited, 20)
                return Reply(Kind.AGGREGATE, sum(np.sum(m) for m in self.got.values()))

        def send(self, to, key, message, seconds=20.0):
            ref = self.context.send("1:send", to, key, message, Kind.MASKED)
            return Reply(Kind.METRICS, self.context.get(ref, seconds))

        def hold(self, count):
            with self.changed:
                self.changed.wait_for(lambda: self.awaited == 0 or len(self.got) >= count, 20)
                return Reply(Kind.METRICS, sorted(self.got))

        def open(self):
            with self.changed:
                self.awaited = 0  # lets everybody go
                self.changed.notify_all()

        def watch(self, count):
            return self.hold(count)

        def plain(self):
            return 5

    return Gate
