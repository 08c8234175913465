# SPDX-License-Identifier: Apache-2.0
"""Programs run on a value in another process, which knows nothing of this one."""

import pickle

from pure.forks_kit import Forks

from fedray.party.parcel import pack

OPEN = """
import inspect, pickle, sys, traceback
import fedray.party.parcel

value = pickle.loads(parcel).open()
exec(program)
"""


class Elsewhere:
    """Call it with a value and a program that reads `value`; it returns what that prints.

    Args:
        forks: Where it runs.
    """

    def __init__(self, forks: Forks) -> None:
        self._forks = forks

    def __call__(self, value: object, program: str, fails: bool = False) -> str:
        code, printed, error = self._forks.run(OPEN, {"parcel": pickle.dumps(pack(value)), "program": program})
        assert (code != 0) == fails, error.decode()
        return (error if fails else printed).decode()
