# SPDX-License-Identifier: Apache-2.0
"""What may be a party's name. Pure.

Names are compared by people, shown in terminals beside fingerprints, and become parts of paths on a party's machine. So
a name looks like what it is, and leads nowhere.
"""

from __future__ import annotations

import re
import unicodedata

from fedray.errors import PlanError

MOST_BYTES = 64
"""Longest name in UTF-8: names stand in every signed message, and in the names of files."""

_SEPARATORS = "/\\"

# Letters and marks by their category, so that `isprintable` takes them, of which nothing is seen: "bob" with one of
# these looks like "bob". They are Unicode's "default ignorable", of which the rest is not printable anyway, and the
# pattern of Braille that has no dot.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def check_name(name: object) -> None:
    """Checks a party's name, wherever it comes from: the driver, a file, a message.

    Raises:
        PlanError: It is empty, too long, no Unicode text in normal form, not printable as it is, or would lead out of
            a folder. The message shows it with everything escaped that a terminal would act upon.
    """
    if not isinstance(name, str) or not name or any("\ud800" <= c <= "\udfff" for c in name):
        raise PlanError(f"a party's name must be a non-empty string of Unicode text, found {name!r}")
    if len(name.encode()) > MOST_BYTES:
        raise PlanError(f"a party's name has at most {MOST_BYTES} bytes, found {len(name.encode())}")
    if unicodedata.normalize("NFC", name) != name:
        raise PlanError(f"the name {name!a} is not in Unicode normal form NFC: two spellings would look the same")
    # `isprintable` is false of control characters and of those that turn the direction of writing.
    if not name.isprintable() or name != name.strip() or _UNSEEN.search(name):
        raise PlanError(
            f"a party's name must be printable, without blanks around it and without characters that nobody sees, "
            f"found {name!a}"
        )
    # A mark at the start would be drawn on whatever stands before the name.
    if unicodedata.category(name[0]).startswith("M"):
        raise PlanError(f"a party's name must not begin with a combining mark, found {name!a}")
    # A name becomes a folder's and a file's: "/etc/x" would lead past the folder that it is joined to, ".." above it.
    if set(name) & set(_SEPARATORS) or name.startswith((".", "~")):
        raise PlanError(
            f"a party's name must not hold {' or '.join(map(repr, _SEPARATORS))} nor begin with '.' or '~', since it "
            f"names files; found {name!r}"
        )
