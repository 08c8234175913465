# SPDX-License-Identifier: Apache-2.0
"""What every tier shares: one Ray cluster for a whole run of the tests, and sessions that end with their test.

Sessions of cluster tests join the one cluster (`address="auto"`), because starting one takes seconds. It ends with the
run, also when tests fail or are interrupted; two runs at once have a cluster each and share nothing.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

import fedray as sf
from fedray.runtime.session import Session, current

# Many processes import fedray, and each would compile it again where the environment forbids keeping what is compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# How long an example takes depends on what else the machine does. `.ci/run` draws again, with the profile "long".
ANY_MACHINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("short", ANY_MACHINE, max_examples=40)
settings.register_profile("long", ANY_MACHINE, max_examples=200)
settings.load_profile("short")


@pytest.fixture(autouse=True)
def interruptible() -> None:
    """Lets Ctrl-C through: a shell keeps it from what runs in the background, and the command line takes it over."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """Starts Ray once; returns the address under which sessions join it."""
    from fedray.runtime.ray import LocalCluster

    running = LocalCluster()
    running.start({"special": 2}, threads=1, show_output=False)
    yield "auto"
    running.stop()


@pytest.fixture(scope="module", params=["inline", "ray"])
def address(request: pytest.FixtureRequest) -> str:
    """Runs a module's tests once on each transport."""
    return "inline" if request.param == "inline" else request.getfixturevalue("cluster")


@pytest.fixture(scope="module")
def shared(address: str) -> Iterator[Session]:
    """Returns a session of alice, bob and charlie for all tests of a module that leave it as it was."""
    sf.init(["alice", "bob", "charlie"], address)
    yield current()
    sf.shutdown()


@pytest.fixture
def start() -> Iterator[Callable[..., Session]]:
    """Returns `init`, with alice and bob by default; the session ends with the test.

    Not for modules that use `shared`: there is one session at a time.
    """

    def begin(address: str, parties: tuple[str, ...] = ("alice", "bob"), **settings: object) -> Session:
        sf.init(list(parties), address, **settings)
        return current()

    sf.shutdown()
    yield begin
    sf.shutdown()
