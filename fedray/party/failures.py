# SPDX-License-Identifier: Apache-2.0
"""Exceptions as records and back. Knows what a traceback may show; does not know how records travel.

A record under a strict policy holds the exception's type and where it was raised, but no message text and no source
line. Errors that fedray itself raises keep their text: they are written to contain no values.
"""

from __future__ import annotations

import traceback
from types import TracebackType

from fedray import errors
from fedray.errors import FedRayError, PartyError, PartyLost
from fedray.types import Failure, PartyName

_PLUMBING = ("fedray.party.party",)  # modules whose frames say nothing about what the user's code did

_IMPORT_REMEDY = (
    "; inside a function, a party imports what is installed at it. Import a module of your own at the head of its file "
    "and by its full name, then it travels along"
)


class Failed(Exception):  # noqa: N818 (not an error of its own: it carries one)
    """Raised where a party uses a value whose making has failed; carries the first failure."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def to_failure(error: BaseException, party: PartyName, function: str, *, text: bool) -> Failure:
    """Returns an exception as a record.

    Args:
        error: What was raised.
        party: Where.
        function: What was called there, for the message.
        text: Whether the record may hold the message and source lines (no under a strict policy).
    """
    if isinstance(error, Failed):
        return error.failure
    # The class has to be ours and so has the code that raised it: user code could raise DataError with a row of data
    # in its text, which strict egress must not let out.
    kind = type(error).__name__
    ours = type(error).__module__ == errors.__name__ and _raised_by_us(error.__traceback__)
    if ours and isinstance(error, PartyError):  # it happened elsewhere and was told us: pass it on unchanged
        return Failure(kind, str(error), error.party, error.function, error.remote_type, error.remote_traceback)
    seen = _beyond_us(error.__traceback__)
    trace = "".join(traceback.format_exception(type(error), error, seen)) if text else _frames(seen)
    where = f"party {party!r}"
    if type(error).__module__ == errors.__name__ and not isinstance(error, PartyError):
        message = (
            _text_of(error) if text or ours else f"{kind} in {function} (the party's policy withholds the message)"
        )
        message = message.removeprefix(f"{party}: ")  # as protocol code names whose end it is
        message = message if where in message else f"{where}: {message}"
        origin: str = getattr(error, "party", "") or party if ours else party
        return Failure(kind, message, origin, function, kind, "" if ours else trace)  # our own text says it all
    detail = f": {_text_of(error)}" if text else ""
    if isinstance(error, ImportError):
        detail += _IMPORT_REMEDY
    message = f"{where}: {kind} in {function}{detail}\n\n--- traceback in {where} ---\n{trace}".rstrip()
    return Failure("PartyError", message, party, function, kind, trace)


def to_error(failure: Failure) -> FedRayError:
    """Returns the exception that a record stands for."""
    # By name from our own module only: a record comes from another process and cannot be trusted to name a class.
    kind = getattr(errors, failure.error, PartyError)
    if not (isinstance(kind, type) and issubclass(kind, FedRayError)):
        kind = PartyError
    if issubclass(kind, PartyError):
        return kind(
            failure.message,
            party=failure.party,
            function=failure.function,
            remote_type=failure.remote_type,
            remote_traceback=failure.traceback,
        )
    if issubclass(kind, PartyLost):
        return kind(failure.message, party=failure.party)
    error = kind(failure.message)
    if failure.traceback:
        # A note, so that `str(error)` stays short and the traceback still shows at the end of the driver's own.
        error.add_note(f"--- traceback in party {failure.party!r} ---\n{failure.traceback.rstrip()}")
    return error


def _raised_by_us(trace: TracebackType | None) -> bool:
    """Whether the innermost frame belongs to fedray, so that user code cannot borrow our error classes."""
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    return str(trace.tb_frame.f_globals.get("__name__", "")).startswith("fedray.")


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a user's class may fail to print itself
        return "(no printable message)"


def _frames(trace: TracebackType | None) -> str:
    return "".join(f"  {f.filename}:{f.lineno} {f.name}\n" for f in traceback.extract_tb(trace))


def _beyond_us(trace: TracebackType | None) -> TracebackType | None:
    """Returns a traceback without the frames that every call to a party goes through, if others follow."""
    inner = trace
    while inner is not None and inner.tb_frame.f_globals.get("__name__") in _PLUMBING:
        inner = inner.tb_next
    return inner or trace
