# SPDX-License-Identifier: Apache-2.0
"""SPU, several parties that compute on shares of values, as the driver's notation sees it.

The driver holds names. A share goes from its owner to one compute party; neither the driver nor any compute party sees
a value, unless somebody opens it, through the door of every compute party.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from fedray.backends.spu.program import Program
from fedray.device.interfaces import Device, live
from fedray.device.pyu import PYUObject, check_count, name_of
from fedray.device.spu.definition import Cluster, read
from fedray.device.spu.handle import SPUObject, make_handle
from fedray.device.spu.vaults import Vaults
from fedray.errors import DeviceMismatch, NotInitialized, PlanError
from fedray.party.spu.vault import Shared
from fedray.party.table import replace
from fedray.runtime.session import Session, current, running
from fedray.types import PartyName


class SPU(Device[SPUObject]):
    """Several parties that compute on shares of values none of them sees.

    `x.to(spu)` shares a value, `spu(function)(a, b)` runs a JAX function on shared values (with the extra
    `fedray[spu]`), and `y.to(alice)` or `sf.reveal(y)` opens one.

    Args:
        cluster_def: `{"nodes": [{"party": "alice", "address": "127.0.0.1:9100"}, ...], "runtime_config": {...}}`, as
            `sf.utils.testing.cluster_def` makes it. A node may have `"tls": {"certificate": path, "private_key": path,
            "authority": path}`, for links between machines.
        link_desc: Options of the links between the compute parties, e.g. `{"recv_timeout_ms": 60000}`.
        bound: Largest absolute number that may be shared; None for 65536, or what a small ring has room for. Floats are
            rounded to steps of 2^-18 (4e-6), or of as many bits as `runtime_config` has as `"fxp_fraction_bits"`.
        compress: Whether shares travel as seeds of 32 bytes where they can. What is hidden then rests on AES.

    Raises:
        PlanError: The definition is not of this form, its protocol does not fit the number of parties, or it names a
            party that the session does not have.

    Example:
        >>> spu = sf.SPU(sf.utils.testing.cluster_def(["alice", "bob"]))
        >>> a = alice(np.array)([1.0, 2.0]).to(spu)
        >>> b = bob(np.array)([3.0, 4.0]).to(spu)
        >>> sf.reveal(2 * a + b).round(3).tolist()
        [5.0, 8.0]
    """

    def __init__(
        self,
        cluster_def: Mapping[str, Any],
        link_desc: Mapping[str, int] | None = None,
        *,
        bound: float | None = None,
        compress: bool = True,
    ) -> None:
        self.cluster: Cluster = read(cluster_def, link_desc, bound)
        self.cluster_def = cluster_def
        self._bound, self._compress = bound, compress
        self._vaults: Vaults | None = None
        session = running()
        if session is not None:
            for party in self.parties:
                session.check(party)

    @property
    def parties(self) -> tuple[PartyName, ...]:
        """Names of the parties whose processes hold the shares."""
        return self.cluster.parties

    def __repr__(self) -> str:
        return f"SPU({', '.join(self.parties)})"

    def place(self, data: Any) -> Any:
        """Shares every party's value among data, and returns the handles in their places.

        Args:
            data: A handle on a party's value, or lists, tuples and dicts that hold some.

        Raises:
            PlanError: There is no party's value in it.
            NotInitialized: A handle's session has ended.
        """
        held: list[PYUObject] = []
        replace(data, PYUObject, held.append)
        if not held:
            raise PlanError(
                f"to: an SPU takes values that parties hold, found {type(data).__name__}; the driver's own value goes "
                "to a party first: sf.to(alice, x).to(spu)"
            )
        return replace(data, PYUObject, self.receive)

    def receive(self, held: PYUObject) -> SPUObject:
        """Shares a party's value among the compute parties, as egress kind `share`, and returns a handle at once.

        Raises:
            NotInitialized: The handle's session has ended.
        """
        session = live(held)
        vaults = self.vaults(session)
        made = make_handle(self, session, owner=held.device.name)
        vaults.ask(held.device.name, "deal", "to spu", held.key, made.key)
        return made

    def stack(self, values: Sequence[SPUObject], axis: int = 0) -> SPUObject:
        """Returns shared values of one shape, whoever owned them, along a new axis."""
        return self._join("stack", values, axis)

    def concatenate(self, values: Sequence[SPUObject], axis: int = 0) -> SPUObject:
        """Returns shared values end to end along an axis that they have."""
        return self._join("concatenate", values, axis)

    def __call__(
        self, function: Callable[..., Any], num_returns: int = 1, static_argnames: Sequence[str] = ()
    ) -> Callable[..., Any]:
        """Returns a function that the compute parties run on shares, and that yields a handle on its result at once.

        Its arguments may be shared values, also inside lists, tuples and dicts; other arguments are public.

        Args:
            function: A JAX function.
            num_returns: How many handles to return; with more than one, the function returns a tuple of as many arrays.
            static_argnames: Names of arguments that are part of the program, e.g. an axis.

        Raises:
            PlanError: The extra `fedray[spu]` is not installed at the compute parties, `runtime_config` does not say
                where multiplication triples come from, or an argument cannot work.
        """
        if not callable(function):
            raise PlanError(f"{self!r}(...): expected a function, found {type(function).__name__}")
        check_count(num_returns)
        # Checked at the first program and not before: sums and public factors need no triples, and so no choice of a
        # dealer.
        self.cluster.check_triples()
        session = current()
        vaults = self.vaults(session)
        vaults.prepare()
        name = name_of(function)
        program = Program(function, name, num_returns, tuple(static_argnames))

        def call_there(*args: Any, **kwargs: Any) -> Any:
            if not session.open:
                raise NotInitialized(f"{name}: its session has ended; make spu(function) again after sf.init(...)")
            # A party's own handle is refused, not shared in silence: sharing is a step that the ledger shows, and so
            # should the program.
            replace((args, kwargs), PYUObject, lambda held: _refuse(self, name, held))
            given = replace((args, kwargs), SPUObject, lambda held: self.shared(held, name))
            # Every compute party keeps its share under the same key, so one handle names them all.
            made = tuple(make_handle(self, session) for _ in range(num_returns))
            vaults.ask_compute_parties("run", name, [one.key for one in made], program, given)
            return made[0] if num_returns == 1 else made

        return call_there

    def vaults(self, session: Session) -> Vaults:
        """Returns the vaults of a session; the first time they are made and introduced to each other."""
        # Made late: an SPU may be described before `init`, and one that is never used costs no messages.
        if self._vaults is None or self._vaults.session is not session:
            self._vaults = Vaults(self.cluster, session, self._bound, self._compress)
        return self._vaults

    def shared(self, held: SPUObject, name: str) -> Shared:
        """Returns what stands for a value in the arguments of a call to the compute parties.

        Raises:
            DeviceMismatch: Another SPU holds it.
            NotInitialized: Its session has ended.
        """
        live(held)
        if held.device is not self:
            raise DeviceMismatch(
                f"{name} runs at {self!r}, but an argument is held by {held.device!r} (another SPU object); share it "
                "with this one"
            )
        return Shared(held.key, held.owner)

    def apply(self, operation: str, args: Sequence[Any], values: Sequence[SPUObject]) -> SPUObject:
        """Lets every compute party apply one of `fedray.party.spu.vault.OPERATIONS` to its shares.

        Args:
            operation: Its name there.
            args: Its plain arguments.
            values: The shared values it works on, all of this SPU and one session.
        """
        session = live(values[0])
        inputs = [self.shared(value, operation) for value in values]
        made = make_handle(self, session)
        self.vaults(session).ask_compute_parties("apply", operation, made.key, operation, list(args), inputs)
        return made

    def _join(self, operation: str, values: Sequence[SPUObject], axis: int) -> SPUObject:
        if not isinstance(values, list | tuple) or not values or not all(isinstance(v, SPUObject) for v in values):
            raise PlanError(f"{operation}: expected a list of values that an SPU holds, found {values!r}")
        return self.apply(operation, [axis], values)


def _refuse(spu: SPU, name: str, held: PYUObject) -> NoReturn:
    raise DeviceMismatch(
        f"{name} runs at {spu!r}, but an argument is held by {held.device.name}; share it with x.to(spu)"
    )
