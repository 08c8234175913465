# SPDX-License-Identifier: Apache-2.0
"""SumSession: the driver's handle on one aggregator's rounds. It opens sessions, announces rounds, and supervises.

The driver is in no round's path: it relays the set-up, asks the parties to run a segment, and then only watches. It
knows no model and no data.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from fedray.errors import FedRayError, PartyLost, ProtocolError
from fedray.party.combiner import Combiner, Progress
from fedray.party.orders import Expect
from fedray.protocol.config import Config
from fedray.protocol.scheme import Manifest
from fedray.runtime.session import Session
from fedray.types import Key, PartyName, Ref, Round

NamedStrategy: TypeAlias = tuple[str, dict[str, float]]

GRACE_SECONDS = 5.0
"""How long the parties may take to notice that their segment was given up."""


class SumSession:
    """One server's combiner and the parties' services that send to it.

    Args:
        session: The running session.
        server: The party that sums.
        strategy: Name and parameters of the one whose server half the combiner runs; None for plain sums.
        round_timeout: Seconds a round may last after its first message.

    Attributes:
        config: What the open session agreed on; None where none is open.
    """

    def __init__(
        self, session: Session, server: PartyName, strategy: NamedStrategy | None, round_timeout: float
    ) -> None:
        self.session = session
        self.server = server
        self.combiner = session.serve(server, Combiner, strategy, round_timeout)
        self._services: dict[PartyName, Key] = {}
        self.config: Config | None = None
        self._next: Round = 0

    def add(self, services: Mapping[PartyName, Key]) -> None:
        """Adds the parties' services, in roster order; each has `hello`, `confirm` and `start`."""
        self._services.update(services)

    def open(self, config: Config) -> None:
        """Opens a protocol session.

        Raises:
            ProtocolError: A party refuses the Config, or a signature is wrong.
        """
        self.config = None
        names, proposed = list(self._services), config.encode()
        hellos = self.ask_all("hello", proposed, names)
        confirms = self.ask_all("confirm", list(hellos.values()))
        self.ask_all("start", list(confirms.values()))
        self.session.get([self.session.tell(self.server, self.combiner, "begin", proposed, names)])
        self.config, self._next = config, 0

    def ask_all(self, method: str, *args: Any) -> dict[PartyName, Any]:
        """Asks every party's service the same and returns the answers, in roster order."""
        refs = [self.session.ask(party, key, method, *args) for party, key in self._services.items()]
        return dict(zip(self._services, self.session.get(refs), strict=True))

    def announce(self, manifest: Manifest, count: int, train: bool) -> Round:
        """Tells the server which rounds come next and returns the number of the first."""
        first = self._next
        order = Expect(first, count, manifest, "train" if train else "sum")
        self.session.get([self.session.tell(self.server, self.combiner, "expect", order)])
        self._next += count
        return first

    def run(self, method: str, order: Any, on_round: Callable[[int], None] | None = None) -> dict[PartyName, Any]:
        """Lets every party run a segment and returns what each one reports.

        Args:
            method: The services' method, e.g. `"train"`.
            order: Its argument.
            on_round: Called with the number of rounds opened so far.

        Raises:
            PartyLost: A party's process ended; the message names party and round.
            FedRayError: What the first failing party raised. The others have put back the round under way.
        """
        calls = {party: self.session.ask(party, key, method, order) for party, key in self._services.items()}
        return _Watch(self, calls, on_round or (lambda _: None)).run()

    def tell(self, method: str, *args: Any) -> None:
        """Sends the combiner a word that does not wait for an answer."""
        self.session.tell(self.server, self.combiner, method, *args)

    def give_up(self) -> None:
        """Forgets the open session: after a failure the parties' histories may differ, so the next sum opens anew."""
        self.config = None


class _Watch:
    """One segment under way: waits for the parties and the server's news, whichever comes first."""

    def __init__(self, sums: SumSession, calls: Mapping[PartyName, Ref], on_round: Callable[[int], None]) -> None:
        self._sums = sums
        self._session = sums.session
        self._pending = dict(calls)
        self._results: dict[PartyName, Any] = {}
        self._failure: FedRayError | None = None
        self._deadline: float | None = None
        self._on_round = on_round
        self._opened = 0
        self._news: Ref | None = None

    def run(self) -> dict[PartyName, Any]:
        parties = list(self._pending)
        try:
            while self._pending:
                self._step()
        except KeyboardInterrupt:
            self._interrupt()
            raise
        if self._failure is not None:
            self._sums.give_up()
            raise self._failure
        return {party: self._results[party] for party in parties}

    def _step(self) -> None:
        if self._news is None and self._failure is None:
            self._news = self._session.watch(self._sums.server, self._sums.combiner, self._opened)
        watched = [*self._pending.values(), *([self._news] if self._news is not None else [])]
        left = None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)
        done = self._session.wait(watched, timeout=left, first=True)
        if not done:
            self._pending.clear()
        if self._news is not None and self._news in done:
            self._read_news()
        for party in [party for party, ref in self._pending.items() if ref in done]:
            self._collect(party, self._pending.pop(party))

    def _read_news(self) -> None:
        news, self._news = self._news, None
        try:
            (progress,) = self._session.get([news])
        except FedRayError as error:
            self._fail(error)
            return
        self._report(progress)

    def _report(self, progress: Progress) -> None:
        if progress.opened != self._opened:
            self._opened = progress.opened
            self._on_round(self._opened)
        if progress.error:
            self._fail(ProtocolError(progress.error))

    def _collect(self, party: PartyName, ref: Ref) -> None:
        try:
            (self._results[party],) = self._session.get([ref])
        except PartyLost as error:
            text = f"{error} (round {self._opened} of the segment under way; the round was not opened)"
            self._fail(PartyLost(text, party=error.party))
        except FedRayError as error:
            self._fail(error)

    def _fail(self, error: FedRayError) -> None:
        # A lost party explains the errors that others report because of it.
        if self._failure is None or (isinstance(error, PartyLost) and not isinstance(self._failure, PartyLost)):
            self._failure = error
        if self._deadline is None:
            self._deadline = time.monotonic() + GRACE_SECONDS
            self._sums.tell("abort", str(error))

    def _interrupt(self) -> None:
        self._sums.tell("stop")
        self._session.wait(list(self._pending.values()), timeout=GRACE_SECONDS / 2)
        self._sums.tell("abort", "interrupted by the user")
        self._session.wait(list(self._pending.values()), timeout=GRACE_SECONDS / 2)
        self._sums.give_up()
