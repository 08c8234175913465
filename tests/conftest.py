# SPDX-License-Identifier: Apache-2.0
"""What every tier shares: one Ray cluster for a whole run of the tests, one session on it, and others that end sooner.

Sessions of cluster tests join the one cluster (`address="auto"`), because starting one takes seconds. It ends with the
run, also when tests fail or are interrupted; two runs at once have a cluster each and share nothing.
"""

import gc
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

import fedray as sf
from fedray.errors import FedRayError
from fedray.runtime import session as sessions
from fedray.runtime.session import Session, current

# Many processes import fedray, and each would compile it again where the environment forbids keeping what is compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# How long an example takes depends on what else the machine does. `.ci/run` draws again, with the profile "long". Both
# draw the same every time, so that one commit is green or red and not both; `.ci/newest` looks for what they miss.
ANY_MACHINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("short", ANY_MACHINE, max_examples=40, derandomize=True)
settings.register_profile("long", ANY_MACHINE, max_examples=200, derandomize=True)
settings.register_profile("fresh", ANY_MACHINE, max_examples=200)
settings.load_profile("short")


ON_RAY = {
    *(f"tests/cluster/test_{name}.py" for name in ("demo", "dropouts", "memory", "placement", "torch_on_ray")),
    "tests/cluster/test_training.py",
    *(f"tests/contracts/test_{name}.py" for name in ("code_modules", "code_source", "devices", "keys_and_policies")),
    *(f"tests/contracts/test_{name}.py" for name in ("sessions", "soak", "strict_egress", "transports")),
    *(f"tests/contracts/test_spu_{name}.py" for name in ("device", "programs", "sums")),
    *(f"tests/notebooks/test_{name}_notebook.py" for name in ("aggregation", "pytorch", "spu")),
    "tests/notebooks/test_notebooks.py",
}
"""Files that use the cluster: one process runs them all, so there is one cluster. Others may; they cost another."""


gc.disable()  # until what is collected below has been imported and will not go away: walking over it takes seconds


def pytest_collection_finish() -> None:
    """Has the garbage collector run again, over what tests make."""
    gc.enable()
    gc.freeze()


class Grouped(LoadFileScheduling):
    """Deals whole files to the processes, and what uses the cluster in those of `ON_RAY` together.

    That takes longest and waits most; the same tests on the other transport may run anywhere, but for those of an SPU:
    JAX takes seconds to import, and one process is enough.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        if file in ON_RAY and not re.search(r"[\[-]inline[]-]", nodeid):
            return "on Ray"
        return "on shares" if "/test_spu_" in file else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """Takes the place of `--dist loadfile`; any other choice of the command line is left alone."""
    return Grouped(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(autouse=True)
def interruptible() -> None:
    """Lets Ctrl-C through: a shell keeps it from what runs in the background, and the command line takes it over."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def eager_context() -> Any:
    """Imports TensorFlow; returns its module of that name. What the import made is kept from the garbage collector."""
    from fedray.backends.keras.start import frameworks

    frameworks(threads=1)
    gc.freeze()
    from tensorflow.python.eager import context

    return context


@pytest.fixture(scope="module")
def kernels_kept(eager_context: Any) -> Iterator[None]:
    """Lets TensorFlow keep its prepared operations when a model is seeded: most of a test's time goes into them.

    They are dropped so that a random operation without a seed of its own begins anew. For tests whose models have none:
    Keras's initializers and layers do, as theirs come from a seed at every call.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eager_context.pywrap_tfe, "TFE_ContextClearCaches", lambda _context: None)
        yield


PARTIES = ("alice", "bob", "carol", "charlie", "dave", "server")
"""Parties that have their place in the cluster. A session of others says `placement="anywhere"`."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """Starts Ray once; returns the address under which sessions join it."""
    from fedray.runtime.ray import local_cluster

    running = local_cluster()
    running.start(dict.fromkeys(PARTIES, 1) | {"special": 2}, threads=1, show_output=False)
    yield "auto"
    running.stop()


@pytest.fixture(scope="module")
def joined(cluster: str) -> Iterator[None]:
    """Lets `address="auto"` be this cluster in programs that are started, too."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
        # Ray would put the address of the network in the place of this machine's own, where the cluster listens.
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        yield


@pytest.fixture(scope="module", params=["inline", "ray"])
def address(request: pytest.FixtureRequest) -> str:
    """Runs a module's tests once on each transport."""
    return "inline" if request.param == "inline" else request.getfixturevalue("cluster")


class Lasting:
    """A session that is put aside between the modules that share it: each process of a party takes a second to start.

    Meanwhile other sessions may run. One that a test has ended, or in which a party is lost, is replaced.
    """

    def __init__(self) -> None:
        self._session: Session | None = None

    def resume(self) -> Session:
        """Makes it the current session."""
        sf.shutdown()
        if self._session is not None and not _answers(self._session):
            self.end()
        if self._session is None:
            sf.init(["alice", "bob", "charlie"], "auto", seed=SEED)
            self._session = current()
        sessions._current = self._session
        return self._session

    def pause(self) -> None:
        """Puts it aside."""
        if sessions.running() is self._session:
            sessions._current = None
        sf.shutdown()  # the one that a test has left behind, if any

    def end(self) -> None:
        """Ends its parties."""
        if self._session is not None:
            self._session.stop()
            self._session = None


SEED = 3
"""Seed of the session that lasts."""


def _answers(session: Session) -> bool:
    try:
        session.get([session.call(party, "settle", []) for party in session.parties], 30)
    except FedRayError:
        return False
    return True


@pytest.fixture(scope="session")
def lasting(cluster: str) -> Iterator[Lasting]:
    """Returns the session on Ray that all modules share which leave it as it was."""
    session = Lasting()
    yield session
    session.end()


@pytest.fixture(scope="module")
def shared(address: str, request: pytest.FixtureRequest) -> Iterator[Session]:
    """Returns a session of alice, bob and charlie for all tests of a module that leave it as it was."""
    if address == "inline":
        sf.init(["alice", "bob", "charlie"], address, seed=SEED)
        yield current()
        sf.shutdown()
    else:
        lasting = request.getfixturevalue("lasting")
        yield lasting.resume()
        lasting.pause()


@pytest.fixture(scope="module")
def shared_start(shared: Session) -> Callable[..., Session]:
    """Returns what stands for `init` where a test is content with the session that is there."""
    return lambda *_, **__: shared


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
