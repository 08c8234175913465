# SPDX-License-Identifier: Apache-2.0
"""Every error that fedray raises.

::

    FedRayError
    ├── NotInitialized     no session is running, or a handle belongs to one that has ended
    ├── DeviceMismatch     a value is used at a party that does not hold it
    ├── PlanError          bad arguments, found before any work starts
    ├── DataError          a party's data is missing, empty, or does not fit the other parties'
    ├── EgressDenied       the party's policy does not let this value leave
    ├── ProtocolError      a message of the masked-sum protocol is wrong, late, or refused
    │   ├── EncodingError  a number or a byte string cannot be encoded or decoded
    │   │   └── NotFinite  a number is NaN or infinite
    │   └── ServerFault    the server broke the protocol: nobody goes on with it
    ├── PartyError         code that ran inside a party raised; carries the remote traceback
    ├── PartyLost          a party's process has ended or cannot be reached
    └── PartyTimeout       a party did not answer in time; it may still be working

Errors cross process borders as `fedray.types.Failure` records, never as pickled exceptions.

Example:
    >>> sf.PYU("zoe")
    Traceback (most recent call last):
    fedray.errors.PlanError: unknown party 'zoe'; this session has 'alice', 'bob', 'charlie'
    >>> sf.reveal(alice(int)("seven"))
    Traceback (most recent call last):
    fedray.errors.PartyError: party 'alice': ValueError in int: invalid literal for int() ...
"""

from __future__ import annotations

import builtins

import numpy as np

OWN_TYPE = "a type of the user's own"


def type_of(value: object) -> str:
    """Returns how an error names the type of a party's value: `list`, `float32`, or `type 'Table'`.

    A class is named by the user's code, which may put anything into the name. So those that are neither Python's nor
    NumPy's are in quotes, by which a strict policy finds them and withholds them (`fedray/party/failures.py`).
    """
    name = type(value).__name__
    # The class itself and not its module's name, which is the user's to choose, too.
    if value is None or type(value) in (getattr(known, name, None) for known in (builtins, np)):
        return name
    # What is no plain name could hold quotes of its own.
    return f"type {name!r}" if name.isascii() and name.isidentifier() else OWN_TYPE


_MOST_SHOWN = 2000  # characters of one text


def shown(text: str) -> str:
    """Returns a text that somebody else has written as a line for a terminal, at most 2,000 characters of it.

    Whatever a terminal would act upon is escaped, as in a Python string: it could hide the lines around it, or make up
    some. Of a longer text the rest is counted.
    """
    rest = len(text) - _MOST_SHOWN
    line = text[:_MOST_SHOWN]
    line = line if line.isprintable() else repr(line)[1:-1]
    return line if rest <= 0 else f"{line} ... ({rest} more characters)"


class FedRayError(Exception):
    """Base of all errors raised by fedray."""


class NotInitialized(FedRayError):
    """No session is running, or a handle belongs to a session that has ended."""


class DeviceMismatch(FedRayError):
    """A value is used at a party that does not hold it."""


class PlanError(FedRayError, ValueError):
    """Arguments that cannot work, found before any work starts."""


class DataError(FedRayError, ValueError):
    """A party's data is missing, empty, or does not fit that of the other parties."""


class EgressDenied(FedRayError):
    """The party's egress policy refuses to let a value leave."""


class ProtocolError(FedRayError):
    """A message of the masked-sum protocol is wrong, late, or refused."""


class EncodingError(ProtocolError, ValueError):
    """A number does not fit the ring, or bytes do not decode."""


class NotFinite(EncodingError):
    """A number that is to be summed is NaN or infinite."""


class ServerFault(ProtocolError):
    """The server broke the protocol. The run ends: what it tells the other parties is no better."""


class PartyError(FedRayError):
    """Code that ran inside a party raised an exception.

    Args:
        message: What `str(error)` says: party, function, and as much of the remote traceback as is shown.
        party: As the attribute, and so are the others.
        function: What was called there.
        remote_type: Class name of the remote exception.
        remote_traceback: The traceback as text.
        remote_frames: The user's own frames in it.
        sentence: What happened; None for the message.

    Attributes:
        party: Name of the party.
        function: What was called there.
        remote_type: Class name of the remote exception.
        remote_traceback: The traceback as text, long ones without their middle. It holds no lines of code where the
            party's policy withholds them.
        remote_frames: Those of its frames that the user has written, which are shown. With `FEDRAY_TRACEBACK=full` in
            the driver's environment, all are.
        sentence: What happened, without any frames.
    """

    def __init__(
        self,
        message: str,
        *,
        party: str = "",
        function: str = "",
        remote_type: str = "",
        remote_traceback: str = "",
        remote_frames: str = "",
        sentence: str | None = None,
    ) -> None:
        super().__init__(message)
        self.party = party
        self.function = function
        self.remote_type = remote_type
        self.remote_traceback = remote_traceback
        self.remote_frames = remote_frames
        self.sentence = message if sentence is None else sentence


class PartyLost(FedRayError):
    """A party's process has ended or cannot be reached.

    Attributes:
        party: Name of the party.
    """

    def __init__(self, message: str, *, party: str = "") -> None:
        super().__init__(message)
        self.party = party


class PartyTimeout(FedRayError, TimeoutError):
    """A party did not answer in time; the call may still be running there."""
