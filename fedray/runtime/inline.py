# SPDX-License-Identifier: Apache-2.0
"""InlineTransport: every party in this process, for tests, examples and debugging. Knows no Ray.

Same semantics as the cluster: arguments and answers are pickled and copied, commands of a party run one after another
on a thread of their own, messages beside them, and arrays in messages arrive read-only.
"""

from __future__ import annotations

import io
import pickle
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as wait_futures
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, cast

from fedray.errors import PartyLost, PlanError
from fedray.party.code_source import Pickler
from fedray.party.party import LANES, Lane, Party, lane_widths
from fedray.runtime.gather import gather, opened
from fedray.types import Failure, PartyConfig, PartyName, Ref

_STOP_SECONDS = 1.0  # for threads to notice that their party has ended; one that blocks is left to the exit


@dataclass(frozen=True, slots=True, eq=False)
class InlineRef:
    """A call under way."""

    party: PartyName
    method: str
    future: Future[_Box] = field(repr=False)

    def __str__(self) -> str:
        return f"{self.method} at {self.party!r}"


class InlineTransport:
    """Runs every party on threads of this process."""

    def __init__(self) -> None:
        self._hosts: dict[PartyName, _Host] = {}

    def start(self, parties: Mapping[PartyName, PartyConfig]) -> None:
        """Makes every party. Their threads start when they are needed."""
        for name, config in parties.items():
            # One by one: if one cannot be made, those before it can be ended.
            self._hosts[name] = _Host(config, _Side(self, name), len(parties))

    def call(self, party: PartyName, method: str, *args: Any) -> Ref:
        """Calls a method of a party and returns at once; see `fedray.types.Transport.call`.

        Raises:
            PlanError: There is no such party or method, an argument cannot be pickled, or no thread can be started.
        """
        if party not in self._hosts:
            raise PlanError(f"unknown party {party!r}; this session has {', '.join(map(repr, self._hosts)) or 'none'}")
        if method not in LANES:
            raise PlanError(f"a party has no method {method!r}")
        # Pickled by the caller, as on a cluster: what the driver changes afterwards must not change what the party
        # sees.
        return self._hosts[party].submit(method, _Box.of(args))

    def wait(self, refs: Sequence[Ref], timeout: float | None, first: bool = False) -> list[Ref]:
        """Returns the calls that are done or failed; see `fedray.types.Transport.wait`."""
        ours = cast("Sequence[InlineRef]", refs)
        when = FIRST_COMPLETED if first else "ALL_COMPLETED"
        done, _ = wait_futures([ref.future for ref in ours], timeout, when)
        return [ref for ref in ours if ref.future in done]

    def get(self, refs: Sequence[Ref], timeout: float | None) -> list[Any]:
        """Returns the results in order.

        Raises:
            PartyLost: A party has ended.
            PartyTimeout: `timeout` seconds passed.
            FedRayError: What a call failed with.
        """
        ours = cast("Sequence[InlineRef]", refs)
        return gather(
            ours,
            timeout,
            lambda pending, seconds: cast("list[InlineRef]", self.wait(pending, seconds, first=True)),
            # Opened anew for whoever asks: two receivers of one answer must not share its arrays.
            lambda ref: opened(ref.future.result().open()),
        )

    def lose(self, party: PartyName) -> None:
        """Ends a party as if its process had died: whoever waits for it gets `PartyLost`. For tests."""
        self._hosts[party].end(f"party {party!r} has ended")

    def lost(self, party: PartyName) -> bool:
        """Returns whether the party has ended."""
        return self._hosts[party].ended is not None

    def abandon(self) -> None:
        """Ends every party, whatever it does; see `fedray.types.Transport.abandon`."""
        for host in self._hosts.values():
            host.end("the session has ended")

    def stop(self) -> None:
        """Ends every party. Harmless when nothing runs."""
        # All are told before one is waited for: a party may block in a message from another.
        self.abandon()
        deadline = time.monotonic() + _STOP_SECONDS
        for host in self._hosts.values():
            host.join(deadline)


class _Side:
    """The transport as one party sees it. A party that has ended reaches nobody."""

    def __init__(self, transport: InlineTransport, party: PartyName) -> None:
        self._transport = transport
        self._party = party

    def call(self, party: PartyName, method: str, *args: Any) -> Ref:
        # A dead process sends nothing, but a thread of this one may still run its code.
        if self._transport.lost(self._party):
            raise PartyLost(f"party {self._party!r} has ended", party=self._party)
        return self._transport.call(party, method, *args)

    def wait(self, refs: Sequence[Ref], timeout: float | None, first: bool = False) -> list[Ref]:
        return self._transport.wait(refs, timeout, first)

    def get(self, refs: Sequence[Ref], timeout: float | None) -> list[Any]:
        return self._transport.get(refs, timeout)


class _Host:
    """One party and its threads."""

    def __init__(self, config: PartyConfig, side: _Side, parties: int) -> None:
        self._name = config.name
        self._party = Party(config, side)
        self._open: set[Future[_Box]] = set()
        self._lock = threading.Lock()
        self.ended: str | None = None
        widths = lane_widths(parties)
        self._lanes: dict[Lane, _Lane] = {lane: _Lane(f"{config.name}-{lane}", width) for lane, width in widths.items()}

    def submit(self, method: str, args: _Box) -> InlineRef:
        future: Future[_Box] = Future()
        with self._lock:
            if self.ended is not None:
                # Under the lock: between the check and the entry into `_open`, `end` would miss this call for ever.
                future.set_result(self._lost(self.ended))
                return InlineRef(self._name, method, future)
            self._open.add(future)
        try:
            self._lanes[LANES[method]].put(lambda: self._answer(method, args, future))
        except PlanError:
            with self._lock:
                self._open.discard(future)
            raise
        return InlineRef(self._name, method, future)

    def _answer(self, method: str, args: _Box, future: Future[_Box]) -> None:
        if self.ended is not None:
            return
        # Outside the lock: a command may run for minutes, and `end` must not wait for it.
        answer = _Box.of(self._party.handle(method, *args.open()))
        with self._lock:
            # `end` may have answered in the meantime, and a future takes one result only.
            if future in self._open:
                self._open.discard(future)
                future.set_result(answer)

    def end(self, reason: str) -> None:
        with self._lock:
            if self.ended is None:
                self.ended = reason
            abandoned, self._open = self._open, set()
            for future in abandoned:
                future.set_result(self._lost(reason))
        for lane in self._lanes.values():
            lane.close()
        self._party.close()

    def _lost(self, reason: str) -> _Box:
        # A value and not an exception: whoever opens it raises an error of its own, with its own traceback.
        return _Box.of(Failure("PartyLost", reason, self._name))

    def join(self, deadline: float) -> None:
        for lane, threads in self._lanes.items():
            if lane != "watch":  # it only waits for news, and does so for a second at most
                threads.join(deadline)


class _Lane:
    """A queue and the threads that empty it, which start when no other is free.

    Daemon threads: one that blocks in user code must not hold up the exit.
    """

    def __init__(self, name: str, width: int) -> None:
        self._name, self._width = name, width
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._pending = 0  # jobs that are not done yet, those in the queue included
        self._closed = False

    def put(self, job: Callable[[], None]) -> None:
        with self._lock:
            if self._closed:
                return
            # Parties answer each other in few threads, but all of them may block in the server's messages at once.
            if self._pending >= len(self._threads) < self._width:
                self._start()
            self._pending += 1
            self._queue.put(job)

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise PlanError(
                f"this process has {threading.active_count()} threads and can start no more ({error}); inline, each "
                "party takes one and the server two for each party: take fewer parties, or raise the limit (ulimit -u, "
                "or the container's limit of processes)"
            ) from None
        self._threads.append(thread)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for _ in self._threads:
                # One for each thread: each ends at the first None it takes.
                self._queue.put(None)

    def join(self, deadline: float) -> None:
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            try:
                job()
            finally:
                with self._lock:
                    self._pending -= 1


@dataclass(frozen=True, slots=True)
class _Box:
    """A pickled copy of arguments or of an answer. References to calls in it are not copied."""

    head: bytes
    buffers: tuple[bytes, ...]
    refs: tuple[InlineRef, ...]

    @classmethod
    def of(cls, value: Any) -> _Box:
        stream = io.BytesIO()
        buffers: list[pickle.PickleBuffer] = []
        pickler = _Pickler(stream, buffers)
        pickler.dump(value)
        return cls(stream.getvalue(), tuple(bytes(b.raw()) for b in buffers), tuple(pickler.refs))

    def open(self) -> Any:
        return _Unpickler(self).load()


class _Pickler(Pickler):
    def __init__(self, stream: io.BytesIO, buffers: list[pickle.PickleBuffer]) -> None:
        super().__init__(stream, buffers)
        self.refs: list[InlineRef] = []

    def persistent_id(self, value: Any) -> int | None:
        if not isinstance(value, InlineRef):
            return None
        # A reference holds a lock and a future, which no pickle can carry. It travels beside the bytes, by number.
        self.refs.append(value)
        return len(self.refs) - 1


class _Unpickler(pickle.Unpickler):
    def __init__(self, box: _Box) -> None:
        super().__init__(io.BytesIO(box.head), buffers=box.buffers)
        self._refs = box.refs

    def persistent_load(self, index: int) -> InlineRef:
        return self._refs[index]
