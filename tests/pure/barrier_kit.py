# SPDX-License-Identifier: Apache-2.0
"""Contributors and the server's rounds in one thread, under a clock that the test turns: nothing here takes time.

Each party's part in a round is the conversation that it has in earnest. The world passes its messages to the server,
and resumes it with the answer when there is one; `settle` goes on until everybody waits for somebody.
"""

from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pure.masking_kit import context_of, identities, manifest_of, plain_values, roster_of

from fedray.errors import FedRayError, ProtocolError
from fedray.party.door.commitment import Commitments
from fedray.party.records import Answer, Expect, KeyMessage, Progress, RoundMessage, SumsRequest
from fedray.party.rounds.contributor import Contributor
from fedray.party.rounds.conversation import Conversation, Post
from fedray.party.rounds.server_rounds import ServerRounds
from fedray.protocol.config import Config, Encoding
from fedray.protocol.crypto.keys import Roster
from fedray.protocol.fixed_point import decode
from fedray.protocol.member import Member
from fedray.protocol.memory import ModelMemory
from fedray.protocol.opened import OpenedSum
from fedray.protocol.policy import Policy
from fedray.protocol.recovery import propose
from fedray.protocol.scheme import Opened

MANIFEST = manifest_of(5, metrics=("loss",), weighted=False)
REPORT = manifest_of(1, metrics=("loss",), weighted=False)
TIMEOUT = 10.0
SOON = 20.0
"""Seconds that a test waits where it could wait: longer than any deadline."""


class Told:
    """What a party was told, and what the sums say that it was handed."""

    def __init__(self, world: "World", answer: Answer) -> None:
        self._world, self.answer = world, answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.answer, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Told) and self.answer == other.answer

    __hash__ = None

    def _read(self, opened: OpenedSum) -> Opened:
        config = self._world.config
        manifest = next(m for m in self._world.manifests if m.words(config.contributors) == len(opened.words))
        return decode(config.encoding, config.contributors, manifest, opened)

    @property
    def values(self) -> np.ndarray:
        return self._read(self.answer.opened).values

    @property
    def metrics(self) -> np.ndarray:
        return self._read(self.answer.opened).metrics

    @property
    def past(self) -> list[tuple[int, set[float] | None]]:
        """Rounds that were missed, and the values of their sums."""
        return [
            (one.number, None if one.opened is None else set(self._read(one.opened).values))
            for one in self.answer.missed
        ]


class Died(Exception):  # noqa: N818 (it stands for the end of a process)
    """The party's process ended here."""


class Gate:
    """Keeps a party's message back until it is set."""

    def __init__(self, world: "World") -> None:
        self._world, self._open, self.kept = world, False, deque[Callable[[], None]]()

    def set(self) -> None:
        self._open = True
        while self.kept:
            self._world.later(self.kept.popleft())

    def is_set(self) -> bool:
        return self._open


class Task:
    """A conversation under way. Also what a contributor takes for a thread, where keys are prepared beside rounds."""

    def __init__(self, world: "World", name: str, conversation: Conversation[Any]) -> None:
        self._world, self.name, self._conversation = world, name, conversation
        self._over, self._result, self._error = False, None, None
        self._then: list[Callable[[], None]] = []
        world.later(lambda: self.go_on(lambda: next(conversation)))

    def resume(self, answer: Answer | None) -> None:
        self._world.later(lambda: self.go_on(lambda: self._conversation.send(answer)))

    def fail(self, error: BaseException) -> None:
        self._world.later(lambda: self.go_on(lambda: self._conversation.throw(error)))

    def go_on(self, step: Callable[[], Any]) -> None:
        try:
            found = step()
        except StopIteration as over:
            self._end(over.value, None)
        except (FedRayError, Died) as error:
            self._end(None, error)
        else:
            if isinstance(found, Post):
                self._world.send_on(self, found)
            elif found.is_alive():
                found._then.append(lambda: self.resume(None))
            else:
                self.resume(None)

    def _end(self, result: Any, error: BaseException | None) -> None:
        self._over, self._error = True, error
        self._result = Told(self._world, result) if isinstance(result, Answer) else result
        for waiting in self._then:
            waiting()

    def is_alive(self) -> bool:
        return not self._over

    def done(self) -> bool:
        self._world.settle()
        return self._over

    def exception(self, seconds: float) -> BaseException | None:
        assert self.done(), f"{self.name} waits for ever"
        return self._error

    def result(self, seconds: float) -> Any:
        error = self.exception(seconds)
        if error is not None:
            raise error
        return self._result


class Server:
    """The server's rounds, at the world's time."""

    def __init__(self, world: "World") -> None:
        self._world, self.rounds = world, ServerRounds(TIMEOUT)
        self._tickets = 0

    def begin(self, number: int, config: Config, roster: Roster, hellos: list, confirms: list) -> None:
        self.rounds.begin(number, config, roster, hellos, confirms, self._world.now)

    def expect(self, order: Expect) -> None:
        self.rounds.expect(order, self._world.now)

    def stop(self) -> None:
        self.rounds.stop()

    def abort(self, reason: str) -> None:
        self.rounds.abort(reason, self._world.now)

    def lost(self, party: str, reason: str) -> None:
        self.rounds.lost(party, reason, self._world.now)

    def progress(self, seen: int, seconds: float) -> Progress:
        """Returns what the driver is told, as if `seconds` had passed where there is no news."""
        if seen < 0:
            return self.rounds.progress()
        ticket = self.ticket()
        self.rounds.watch(ticket, seen, seconds, self._world.now)
        if ticket not in self.rounds.barrier.answers:
            self.rounds.barrier.due(self._world.now + seconds)
        return self.rounds.barrier.answers.pop(ticket)

    def ticket(self) -> int:
        self._tickets += 1
        return self._tickets


def take(
    rounds: ServerRounds, ticket: int, name: str, message: RoundMessage | SumsRequest | KeyMessage, now: float
) -> None:
    """Hands a message to the server's rounds, as the server does."""
    if isinstance(message, RoundMessage):
        rounds.take(ticket, name, message, now)
    elif isinstance(message, SumsRequest):
        rounds.await_sum(ticket, name, message, now)
    else:
        rounds.set_up(ticket, name, message.session, message.batch, message.body, now)


class World:
    """Parties p00, p01, ... and their server; `gates` may stop or end a party before its k-th message of a round."""

    def __init__(self, parties: int, part: str, batch: int = 4) -> None:
        self.now = 0.0
        self.server = Server(self)
        self.keys = identities(parties)
        self.roster = roster_of(self.keys)
        self.names = self.roster.names
        self.memories = {name: ModelMemory() for name in self.names}
        self.gates: dict[tuple[str, int, int], Gate | BaseException] = {}
        self.most_inside = 0
        self._queue: deque[Callable[[], None]] = deque()
        self._inside: dict[int, Task] = {}
        self.kept: dict[int, Answer] = {}
        self._sent: dict[tuple[str, int], int] = {}
        self._part, self._batch, self._sessions = part, batch, 0
        self.manifests = [MANIFEST, REPORT]
        self.contributors = {name: self._contributor(name) for name in self.names}
        self.begin()

    def _contributor(self, name: str) -> Contributor:
        context = SimpleNamespace(
            name=name,
            member=lambda names: Member(
                name, self.keys[name], self.roster.subset(names), Policy(), self.memories[name]
            ),
            state={},
            commitments=Commitments(),
        )
        made = Contributor(context, "server", "round_server")
        made._beside = lambda conversation: Task(self, name, conversation)
        return made

    def begin(self) -> None:
        """Opens a session among everybody."""
        self._sessions += 1
        if self._part == "recovery":
            self.config = propose(self.roster, ["server"], Encoding(), batch=self._batch)
        else:
            self.config = Config.propose(self._part, self.roster, ["server"], Encoding())
        ends = self.contributors.values()
        hellos = [end.hello(self.config.encode(), list(self.names), {}).value for end in ends]
        confirms = [end.confirm(hellos).value for end in ends]
        for end in ends:
            end.start(confirms, self._sessions)
        self.server.begin(self._sessions, self.config, self.roster, hellos, confirms)

    # How messages travel.

    def later(self, step: Callable[[], None]) -> None:
        self._queue.append(step)

    def send_on(self, task: Task, post: Post) -> None:
        """Brings a message to the server, past whatever keeps or ends its sender there."""
        gate = None
        if isinstance(post.message, RoundMessage):
            number = post.message.number
            place = self._sent[task.name, number] = self._sent.get((task.name, number), -1) + 1
            gate = self.gates.pop((task.name, number, place), None)
        if isinstance(gate, Gate) and not gate.is_set():
            gate.kept.append(lambda: self._deliver(task, post))
        elif isinstance(gate, BaseException):
            self.server.lost(task.name, "its process has ended")
            task.fail(gate)
        else:
            self._deliver(task, post)

    def _deliver(self, task: Task, post: Post) -> None:
        ticket = self.server.ticket()
        self._inside[ticket] = task
        self.most_inside = max(self.most_inside, len(self._inside))
        try:
            take(self.server.rounds, ticket, task.name, post.message, self.now)
        except FedRayError as error:
            del self._inside[ticket]
            task.fail(error)

    def settle(self) -> None:
        """Lets everybody go on until all of them wait for somebody."""
        answers = self.server.rounds.barrier.answers
        while self._queue or answers:
            for ticket in list(answers):
                if ticket in self._inside:
                    self._inside.pop(ticket).resume(answers.pop(ticket))
                else:  # the test asked by itself
                    self.kept[ticket] = answers.pop(ticket)
            if self._queue:
                self._queue.popleft()()

    def advance(self, seconds: float) -> None:
        """Turns the clock, when whoever is on the way to the server has come there."""
        self.settle()
        self.now += seconds
        while self.server.rounds.barrier.deadline <= self.now:
            self.server.rounds.barrier.due(self.now)
            self.settle()

    # What tests let happen.

    def expect(self, count: int = 1, first: int = 0, report: bool = False, absent: tuple = ()) -> None:
        self.server.expect(Expect(first, count, MANIFEST, REPORT if report else None, absent))

    def send(self, name: str, number: int, manifest=MANIFEST) -> Task:
        """Lets a party contribute `value(name)` to a round."""
        context = context_of(number, manifest, purpose="train" if manifest is MANIFEST else "evaluate")
        contribution = plain_values(np.full(manifest.size, self.value(name)), metrics=[1.0])
        return Task(self, name, self.contributors[name].conversation("round", context, contribution))

    def send_all(self, number: int, but: tuple = (), manifest=MANIFEST) -> dict[str, Task]:
        return {name: self.send(name, number, manifest) for name in self.names if name not in but}

    def value(self, name: str) -> float:
        return float(1 << self.names.index(name))

    def total(self, *names: str) -> float:
        return sum(map(self.value, names))

    def dies(self, name: str, number: int, before: int) -> None:
        """Ends a party before its message `before` (0, 1, 2) of a round; the driver learns of it at once."""
        self.gates[name, number, before] = Died()


def answers(tasks: dict[str, Task]) -> dict[str, Told]:
    """Returns everybody's answer; a party that died or raised is left out."""
    found = {name: task.exception(SOON) or task.result(SOON) for name, task in tasks.items()}
    return {name: answer for name, answer in found.items() if isinstance(answer, Told)}


def sums(found: dict[str, Told]) -> set[float]:
    """Returns the opened sums, which must be one and the same for all."""
    return {float(value) for answer in found.values() for value in answer.values}


def verdicts(found: dict[str, Told]) -> dict[str, str]:
    """Returns what everybody was told came of the round."""
    return {name: answer.verdict for name, answer in found.items()}


def refused(task: Task, text: str) -> None:
    """Checks that a message was answered with an error that says so."""
    with pytest.raises(ProtocolError, match=text):
        task.result(SOON)


def hold(w: World, name: str, number: int, before: int) -> Gate:
    """Keeps a party's message of a round back until the gate is set."""
    gate = w.gates[name, number, before] = Gate(w)
    return gate
