# SPDX-License-Identifier: Apache-2.0
"""SPUObject, the name of a value that an SPU holds in shares, and how its shares come together again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, Protocol, final

import numpy as np
from numpy.typing import NDArray

from fedray.device.interfaces import Handle, live
from fedray.device.pyu import PYU, PYUObject, issue
from fedray.device.spu.definition import Cluster
from fedray.device.spu.vaults import Vaults
from fedray.errors import DeviceMismatch, PlanError
from fedray.party.parcel import pack
from fedray.party.spu.vault import Shared, Vault, from_party
from fedray.party.table import Slot
from fedray.protocol.spu.form import Form
from fedray.protocol.spu.secret import Secret, combine
from fedray.runtime.session import Session
from fedray.types import Key, PartyName, Ref


class ShareHolder(Protocol):
    """What a handle needs of the SPU that holds its shares.

    The SPU's file makes handles and so imports this one. Stating its side here keeps the two from importing each other.
    """

    @property
    def cluster(self) -> Cluster:
        """The SPU's definition."""

    @property
    def parties(self) -> tuple[PartyName, ...]:
        """Names of the compute parties."""

    def vaults(self, session: Session) -> Vaults:
        """Returns the SPU's vaults in a session."""

    def shared(self, held: SPUObject, name: str) -> Shared:
        """Returns what stands for a value in the arguments of the call `name`."""

    def apply(self, operation: str, args: Sequence[Any], values: Sequence[SPUObject]) -> SPUObject:
        """Lets every compute party apply an operation to its shares.

        Args:
            operation: Its name in `fedray.party.spu.vault`.
            args: Its plain arguments.
            values: The shared values it works on.
        """


@final
class SPUObject(Handle):
    """The name of a value that an SPU holds in shares. Made by `x.to(spu)` and by what is done to such values.

    Sums, differences and products with public numbers, sums and means along axes need no message among the compute
    parties. Dropping the last handle releases the shares.

    Attributes:
        device: The SPU.
        key: The value's name in the tables of the compute parties.
        session: The session it belongs to.
        owner: The party that shares it; None for a result.

    Raises:
        PlanError: Always: a handle is made by sharing a value.

    Example:
        >>> spu = sf.SPU(sf.utils.testing.cluster_def(["alice", "bob"]))
        >>> x = charlie(np.array)([[1, 2], [3, 4]]).to(spu)
        >>> x.shape
        (2, 2)
        >>> sf.reveal(x.sum(axis=0).to(charlie)).tolist()
        [4, 6]
    """

    __slots__ = ("__weakref__", "_described", "device", "key", "owner", "session")
    __array_ufunc__ = None  # NumPy leaves `array + shared` to this class

    device: ShareHolder
    key: Key
    session: Session
    owner: PartyName | None
    _described: tuple[tuple[int, ...], str] | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 (whatever is passed, it is refused)
        raise PlanError("SPUObject: a handle on shared values is made by x.to(spu), never by hand")

    @property
    def shape(self) -> tuple[int, ...]:
        """The value's shape; waits until it is known."""
        return self._describe()[0]

    @property
    def dtype(self) -> str:
        """The type it is opened as; waits until it is known."""
        return self._describe()[1]

    def to(self, device: PYU) -> PYUObject:
        """Opens the value at a party: every compute party sends it its shares, as egress kind `raw`.

        Raises:
            NotInitialized: The handle's session has ended.
            PlanError: `device` is not a party of the session.
        """
        if not isinstance(device, PYU):
            raise PlanError(f"to: expected a PYU, found {type(device).__name__}")
        session = live(self)
        session.check(device.name)
        vaults, ticket = self.device.vaults(session), session.new_key()
        vaults.ask_compute_parties("give", f"to {device.name}", self.device.shared(self, "to"), device.name, ticket)
        # The second half of the opening runs in the receiving party: it puts the shares together that come in under
        # this ticket.
        payload = pack((_collect, (Slot(vaults.keys[device.name]), ticket), {}))
        opened: PYUObject = issue(device, 1, "open", "run", payload)
        return opened

    def ask_value(self) -> list[Ref]:
        """Asks every compute party for its shares, as egress kind `raw`; see `fedray.reveal`.

        Raises:
            NotInitialized: The handle's session has ended.
        """
        vaults = self.device.vaults(live(self))
        return vaults.ask_compute_parties("reveal", "reveal", self.device.shared(self, "reveal"))

    def opened(self, answers: Sequence[tuple[bytes, NDArray[Any]]]) -> Any:
        """Returns the value, from the form and the shares that each compute party answered.

        Raises:
            ProtocolError: The shares do not belong together.
        """
        secrets = [Secret(Form.decode(form), shares) for form, shares in answers]
        return combine(self.device.cluster.layout, secrets)

    @classmethod
    def ask_settled(cls, handles: Sequence[SPUObject]) -> list[Ref]:
        """Asks every compute party to say when its shares of each value are there.

        Raises:
            NotInitialized: A handle's session has ended.
        """
        refs: list[Ref] = []
        for held in handles:
            vaults = held.device.vaults(live(held))
            refs += vaults.ask_compute_parties("settle", "wait", held.device.shared(held, "wait"))
        return refs

    def sum(self, axis: int | tuple[int, ...] | None = None) -> SPUObject:
        """Returns the sum over axes, None for all."""
        return self.device.apply("total", [axis], [self])

    def mean(self, axis: int | tuple[int, ...] | None = None) -> SPUObject:
        """Returns the mean over axes, None for all."""
        return self.device.apply("mean", [axis], [self])

    def __add__(self, other: Any) -> SPUObject:
        if isinstance(other, SPUObject):
            return self.device.apply("add", [], [self, other])
        return self.device.apply("add_public", [_public(other)], [self])

    def __neg__(self) -> SPUObject:
        return self.device.apply("negative", [], [self])

    def __sub__(self, other: Any) -> SPUObject:
        if isinstance(other, SPUObject):
            return self + (-other)
        # Negated with sign: -array of unsigned integers wraps round, and of booleans raises.
        array = _public(other)
        return self + (-array if array.dtype.kind == "f" else -array.astype(np.int64))

    def __mul__(self, other: Any) -> SPUObject:
        if isinstance(other, SPUObject):
            raise PlanError(
                "products of two shared values need the extra fedray[spu]: spu(lambda a, b: a * b)(x, y); products "
                "with public numbers do not"
            )
        return self.device.apply("multiply_public", [_public(other)], [self])

    def __truediv__(self, other: Any) -> SPUObject:
        if isinstance(other, SPUObject):
            raise PlanError("division by a shared value needs the extra fedray[spu]: spu(lambda a, b: a / b)(x, y)")
        # Division by zero gives infinity here, and the compute parties refuse numbers that are not finite.
        with np.errstate(divide="ignore", invalid="ignore"):
            return self * (1.0 / _public(other).astype(np.float64))

    # NumPy numbers and arrays on the left come here, too: `__array_ufunc__ = None` above makes NumPy stand back.

    def __radd__(self, other: Any) -> SPUObject:
        return self.__add__(other)

    def __rmul__(self, other: Any) -> SPUObject:
        return self.__mul__(other)

    def __rsub__(self, other: Any) -> SPUObject:
        return (-self).__add__(other)

    def _describe(self) -> tuple[tuple[int, ...], str]:
        if self._described is None:
            session = live(self)
            vaults, first = self.device.vaults(session), self.device.parties[0]
            shared = self.device.shared(self, "describe")
            # The first compute party will do: all know the form, and only the numbers are in shares.
            (self._described,) = session.get([vaults.ask(first, "describe", "describe", shared)])
        return self._described

    def __repr__(self) -> str:
        layout = self.device.cluster.layout
        where = f"{', '.join(self.device.parties)}; {layout.protocol}, FM{layout.bits}"
        # A repr must not raise, and after the session there is nobody left to ask.
        if not self.session.open:
            return f"SPUObject({self.key} at {where}; session ended)"
        shape, dtype = self._describe()
        return f"SPUObject(shape={shape}, dtype={dtype}, shares at {where})"

    def __copy__(self) -> SPUObject:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> SPUObject:
        return self

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise PlanError("a handle on shared values cannot be pickled, nor used inside a function that runs in a party")

    def __del__(self) -> None:
        session = getattr(self, "session", None)
        if session is not None:
            # Every compute party holds a share under this key.
            for party in self.device.parties:
                session.release(party, self.key)


def make_handle(spu: ShareHolder, session: Session, owner: PartyName | None = None) -> SPUObject:
    """Returns a handle under a new key.

    Args:
        spu: What holds the shares.
        session: The running session.
        owner: The party that shares the value; None for a result.
    """
    made = object.__new__(SPUObject)
    # A compute party takes shares from nobody but the party that their name ends with.
    key = session.new_key() if owner is None else from_party(session.new_key(), owner)
    made.device, made.key, made.session, made.owner = spu, key, session, owner
    made._described = None
    return made


def _collect(vault: Vault, ticket: Key) -> Any:
    return vault.collect(ticket)


def _public(value: Any) -> NDArray[Any]:
    if isinstance(value, PYUObject):
        raise DeviceMismatch(f"{value!r} is held by {value.device.name}; share it first with x.to(spu)")
    array = np.asarray(value)
    # Numbers and booleans. Complex numbers, dates and objects have no form in shares.
    if array.dtype.kind not in "fiub":
        raise PlanError(f"expected a public number or array of numbers, found {type(value).__name__}")
    return array
