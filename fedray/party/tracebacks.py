# SPDX-License-Identifier: Apache-2.0
"""What of an exception fits on a screen, and how much of it travels. Knows no records and no policy.

Frameworks raise through dozens of frames of their own, and write further dozens into the text; what helps is the
sentence and the lines that the user has written.
"""

from __future__ import annotations

import os
import re
import sysconfig
import traceback
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from types import TracebackType

from fedray.party.code_source import has_lines
from fedray.types import PartyName

FULL = "FEDRAY_TRACEBACK"
"""Variable at the driver: with "full" it shows all frames of a party's traceback."""

_MOST_LINES = 12  # of a text
_HEAD_LINES = 4  # of these; what a framework says comes last
_MOST_COLUMNS = 1500
_MOST_TRAVELLING = 48_000  # characters of a whole traceback, and of a text
_MOST_FRAMES = 8

_OURS = str(Path(__file__).resolve().parents[1]) + os.sep
_INSTALLED = tuple({os.path.join(path, "") for name, path in sysconfig.get_paths().items() if name.endswith("lib")})
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""What a framework writes for a terminal's colours; where they are escaped, it is noise."""

_FRAME = re.compile(r'\s*File "([^"]*)", line \d+')


def own(trace: TracebackType | None) -> str:
    """Returns the frames of a traceback that are neither a library's nor fedray's, with source lines; the last of many.

    Args:
        trace: The traceback.
    """
    return "".join(traceback.format_list(_own(traceback.extract_tb(trace))))


def places(trace: TracebackType | None, *, own: bool = False) -> str:
    """Returns where an exception was raised, without lines of code.

    Code of a function that came here, and of a file, says where it is. Code that was made here may be called, and lie
    on, whatever line its maker likes.

    Args:
        trace: The traceback.
        own: Whether only the frames are wanted that are neither a library's nor fedray's.
    """
    frames = traceback.extract_tb(trace)
    shown = [
        f"{f.filename}:{f.lineno} {f.name}" if has_lines(f.filename) else "(code made in the party)"
        for f in (_own(frames) if own else frames)
    ]
    return "".join(f"  {line}\n" for line in shown)


def _own(frames: Iterable[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    return [frame for frame in frames if _users(frame.filename)][-_MOST_FRAMES:]


def whole(error: BaseException, trace: TracebackType | None) -> str:
    """Returns a traceback with source lines and all that led to it, as far as it travels.

    Args:
        error: The exception.
        trace: Its traceback, from the frame on that is to be the first.
    """
    lines = traceback.TracebackException(type(error), error, trace).format()
    # Each by itself: a text of 50 MB is one of them.
    kept = [cut(line) for line in lines]
    return cut("".join(kept))


def wanted() -> bool:
    """Returns whether this process's user wants all frames."""
    return os.environ.get(FULL) == "full"


def remote(party: PartyName, trace: str, frames: str) -> str:
    """Returns what the driver shows of a party's traceback: the user's own frames, or all if this process wants them.

    Args:
        party: Whose.
        trace: All of it.
        frames: The user's own frames.
    """
    title = f"--- traceback in party {party!r} ---"
    if wanted():
        return f"{title}\n{trace.rstrip()}"
    shown = f"{title}\n{frames.rstrip()}" if frames else title
    # With lines of code there is a line above the frames and the exception below them.
    around = 2 if trace.startswith("Traceback") else 0
    left_out = len(trace.splitlines()) > len(frames.splitlines()) + around
    return f"{shown}\n  (the libraries' frames are left out; {FULL}=full shows them)" if left_out else shown


def sentence(text: str) -> str:
    """Returns the text of an exception so that it fits on a screen.

    Where frames are listed in it, those of libraries are left out; of many lines the first and the last ones stay.
    """
    lines = _COLOUR.sub("", cut(text)).splitlines()
    if len(lines) > _MOST_LINES:
        lines = [line for line in lines if line.strip() and not _of_library(line)]
    over = len(lines) - _MOST_LINES
    if over > 0:
        tail = _MOST_LINES - _HEAD_LINES
        lines = list(chain(lines[:_HEAD_LINES], [f"... {over} lines ..."], lines[-tail:]))
    return "\n".join(cut(line, _MOST_COLUMNS) for line in lines)


def cut(text: str, most: int = _MOST_TRAVELLING) -> str:
    """Returns a text of at most about so many characters: its beginning and its end, and how much is missing."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} ... {len(text) - 2 * half:,} characters ... {text[-half:]}"


def _of_library(line: str) -> bool:
    found = _FRAME.match(line)
    return found is not None and not _users(found[1])


def _users(file: str) -> bool:
    # A party runs code that was written elsewhere, so no list of the user's own folders is known here.
    if file.startswith(("<frozen", _OURS)) or "site-packages" in file or "dist-packages" in file:
        return False
    return not file.startswith(_INSTALLED)
