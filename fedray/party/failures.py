# SPDX-License-Identifier: Apache-2.0
"""Exceptions as records and back. Knows what a traceback may show; does not know how records travel.

A record under a strict policy holds the exception's type and where it was raised, but no message text and no source
line. Errors that fedray itself raises keep their text: they are written to contain no values. Where such a text quotes
another exception's, or the keys of a user's dict, the quotation is left out.
"""

from __future__ import annotations

import re
import sys
import traceback
from types import FrameType, TracebackType
from typing import Literal

from fedray import errors
from fedray.errors import OWN_TYPE, FedRayError, PartyError, PartyLost
from fedray.party import tracebacks
from fedray.party.code_modules import is_own, of_a_library
from fedray.types import Failure, PartyName

_PLUMBING = ("fedray.party.party",)  # modules whose frames say nothing about what the user's code did

_IMPORT_REMEDY = (
    "; inside a function, a party imports what is installed at it. Import a module of your own at the head of its file "
    "and by its full name, then it travels along"
)


_WITHHELD = "(withheld)"

# A key in the name of a leaf of `fedray.tree.Tree`, such as x['age'], in quotes that may themselves have been quoted.
_KEY = re.compile(r"""(?<=[\w)\]])\[(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\\+'.*\\+'|\\+".*\\+")\]""", re.DOTALL)

# As `fedray.errors.type_of` puts a class that is neither Python's nor NumPy's.
_TYPE = re.compile(r"type '[A-Za-z0-9_]+'")

# What a value of a user's own length would tell: how many results, how long a text, how many fields, how long a unit.
_LENGTH = re.compile(r"(?<=the function returned )\d+(?= values)|(?<=[<>|=][USV])\d+|(?<=64\[)\d+|(?<=record of )\d+")


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
    # Where text may leave, what fedray raises is told in its own words even where user code has called it: the party
    # that they name may be another one.
    trace_is_ours = _raised_by_us(error.__traceback__) or (text and _owners(error.__traceback__)[-1:] == ["fedray"])
    ours = type(error).__module__ == errors.__name__ and trace_is_ours
    cause = error.__cause__
    if not text and ours and cause is not None and _text_of(error) == f"party {party!r}: {_text_of(cause)}":
        # Put under the party's name and passed on, so it is the other's to the last word.
        error, ours = cause, _raised_by_us(cause.__traceback__) and type(cause).__module__ == errors.__name__
    kind = type(error).__name__ if text or of_a_library(type(error)) else OWN_TYPE
    if ours and isinstance(error, PartyError):  # it happened elsewhere and was told us: pass it on unchanged
        told = (error.party, error.function, error.remote_type, error.remote_traceback, error.remote_frames)
        return Failure(kind, error.sentence, *told)
    seen = _beyond_us(error.__traceback__)
    trace = tracebacks.whole(error, seen) if text else tracebacks.places(seen)
    frames = tracebacks.own(seen) if text else tracebacks.places(seen, own=True)
    where = f"party {party!r}"
    if type(error).__module__ == errors.__name__ and not isinstance(error, PartyError):
        message = f"{kind} in {function} (the party's policy withholds the message)"
        if text or ours:
            message = _text_of(error) if text else _discreet(error)
            message = tracebacks.cut(message) if ours else tracebacks.sentence(message)
        message = message.removeprefix(f"{party}: ")  # as protocol code names whose end it is
        message = message if where in message else f"{where}: {message}"
        origin: str = getattr(error, "party", "") or party if ours else party
        if ours:  # our own text says it all
            return Failure(kind, message, origin, function, kind)
        return Failure(kind, message, origin, function, kind, trace, frames)
    detail = f": {tracebacks.sentence(_text_of(error))}" if text else ""
    if isinstance(error, ImportError):
        detail += _IMPORT_REMEDY
    return Failure("PartyError", f"{where}: {kind} in {function}{detail}", party, function, kind, trace, frames)


def to_error(failure: Failure) -> FedRayError:
    """Returns the exception that a record stands for."""
    # By name from our own module only: a record comes from another process and cannot be trusted to name a class.
    kind = getattr(errors, failure.error, PartyError)
    if not (isinstance(kind, type) and issubclass(kind, FedRayError)):
        kind = PartyError
    shown = tracebacks.remote(failure.party, failure.traceback, failure.frames) if failure.traceback else ""
    if issubclass(kind, PartyError):
        return kind(
            f"{failure.message}\n\n{shown}".rstrip(),
            party=failure.party,
            function=failure.function,
            remote_type=failure.remote_type,
            remote_traceback=failure.traceback,
            remote_frames=failure.frames,
            sentence=failure.message,
        )
    if issubclass(kind, PartyLost):
        return kind(failure.message, party=failure.party)
    error = kind(failure.message)
    if shown:
        # A note, so that `str(error)` stays short and the traceback still shows at the end of the driver's own.
        error.add_note(shown)
    return error


def _discreet(error: BaseException) -> str:
    """Returns the text of an error of ours without what others wrote in it."""
    text = _text_of(error)
    for quoted in _foreign(error):
        # Line by line, and the longest first: who quotes may have taken the first line only, or joined them.
        for line in sorted({_text_of(quoted), *_text_of(quoted).splitlines()}, key=len, reverse=True):
            text = text.replace(line.strip(), _WITHHELD) if line.strip() else text
    return _LENGTH.sub(_WITHHELD, _TYPE.sub(OWN_TYPE, _KEY.sub(f"[{_WITHHELD}]", text)))


def _foreign(error: BaseException) -> list[BaseException]:
    """Returns the exceptions that led to an error of ours and that somebody else raised."""
    found: list[BaseException] = []
    # Both links: `raise ... from None` hides an exception from a traceback and leaves it in `__context__`.
    pending, seen = [error.__cause__, error.__context__], {id(error)}
    while pending:
        inner = pending.pop()
        if inner is None or id(inner) in seen:
            continue
        seen.add(id(inner))
        pending += [inner.__cause__, inner.__context__]
        if not (_speaks_of_no_data(inner) and _raised_by_us(inner.__traceback__)):
            found.append(inner)
    return found


def _speaks_of_no_data(error: BaseException) -> bool:
    """Whether the text of an exception, raised in our own code, is ours or the system's.

    Of others, such as the ValueError of a conversion, the text may quote the value.
    """
    # A system's error names a file that we opened, a failed look-up what we looked for.
    system = isinstance(error, OSError) and error.errno is not None
    return system or isinstance(error, LookupError) or type(error).__module__ == errors.__name__


def _raised_by_us(trace: TracebackType | None) -> bool:
    """Whether fedray raised it, and not in a call of user code's.

    So user code can neither borrow our error classes, nor have one of our functions quote what it is given.
    """
    owners = _owners(trace)
    # Frames before our first one are of whoever called the party.
    while owners and owners[0] != "fedray":
        owners.pop(0)
    return bool(owners) and owners[-1] == "fedray" and "user" not in owners


def _owners(trace: TracebackType | None) -> list[str]:
    return [_owner(frame) for frame, _ in traceback.walk_tb(trace)]


def _owner(frame: FrameType) -> Literal["fedray", "library", "user"]:
    """Returns whose code a frame runs. Code is of a module where it has that very module's names."""
    module = sys.modules.get(str(frame.f_globals.get("__name__", "")))
    if module is None or vars(module) is not frame.f_globals or module.__name__ == "__main__" or is_own(module):
        return "user"
    return "fedray" if module.__name__.partition(".")[0] == "fedray" else "library"


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a user's class may fail to print itself
        return "(no printable message)"


def _beyond_us(trace: TracebackType | None) -> TracebackType | None:
    """Returns a traceback without the frames that every call to a party goes through, if others follow."""
    inner = trace
    while inner is not None and inner.tb_frame.f_globals.get("__name__") in _PLUMBING:
        inner = inner.tb_next
    return inner or trace
