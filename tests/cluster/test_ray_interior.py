# SPDX-License-Identifier: Apache-2.0
"""What fedray keeps Ray from doing, without a cluster: Ray's own code is asked what it would do."""

import importlib
import os
import queue
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedray.runtime import environment, ray_interior
from fedray.runtime import ray as transport

WORKER: Any = importlib.import_module("ray._private.worker")
SERVICES: Any = importlib.import_module("ray._private.services")
CLIENT: Any = importlib.import_module("ray.util.client")
CLIENT_LINES: Any = importlib.import_module("ray.util.client.logsclient").LogstreamClient
CONSTANTS: Any = importlib.import_module("ray._private.ray_constants")
STATE: Any = importlib.import_module("ray._private.state")
LOGS: Any = importlib.import_module("ray._private.ray_logging")
NODE: Any = importlib.import_module("ray._private.node").Node
HOOK: Any = importlib.import_module("ray._private.runtime_env.uv_runtime_env_hook")


@pytest.fixture
def connected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Returns where Ray's answers go: what it would hand to every worker, of a driver that `uv run` has started."""
    asked: list[Any] = []
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'secret'\nversion = '0'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(HOOK, "_get_uv_run_cmdline", lambda: ["uv", "run", "program.py"])
    monkeypatch.setattr(CONSTANTS, "RAY_ENABLE_UV_RUN_RUNTIME_ENV", True)  # as read before fedray was there
    monkeypatch.setattr(
        transport.ray,
        "init",
        lambda **_: asked.extend(
            [WORKER._maybe_modify_runtime_env({}, False), CLIENT._apply_uv_hook_for_client({})],
        ),
    )
    return asked


def test_a_driver_s_folder_is_copied_nowhere(connected: list[Any]) -> None:
    for address in ("auto", "127.0.0.1:6379", "ray://127.0.0.1:10001"):
        transport._init(address, False)
    assert connected == [{}] * 6
    assert CONSTANTS.RAY_ENABLE_UV_RUN_RUNTIME_ENV is True, "what the program does with Ray itself is its own affair"
    assert environment.importing()["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] == "0"


def test_a_ray_that_is_not_told_would_copy_it(connected: list[Any], tmp_path: Path) -> None:
    """The broken variant."""
    transport.ray.init()
    assert [found["working_dir"] for found in connected] == [str(tmp_path)] * 2


@pytest.mark.parametrize("local", [True, False])
def test_breakpoint_is_ray_s_at_no_time_and_a_local_address_only_where_it_is_meant(
    monkeypatch: pytest.MonkeyPatch, local: bool
) -> None:
    monkeypatch.setenv("PYTHONBREAKPOINT", "mine")
    monkeypatch.setattr(WORKER, "_global_node", None)
    monkeypatch.setattr(SERVICES, "node_ip_address_from_perspective", lambda _address: "192.0.2.1")
    with ray_interior.left_alone(on_loopback=local, with_lines=True):
        assert SERVICES.resolve_ip_for_localhost("localhost") == ("127.0.0.1" if local else "192.0.2.1")
        monkeypatch.setenv("PYTHONBREAKPOINT", "ray.util.rpdb.set_trace")
    assert os.environ["PYTHONBREAKPOINT"] == "mine"
    assert SERVICES.resolve_ip_for_localhost("localhost") == "192.0.2.1"


# JAX's, where another test has loaded it here: Ray starts a process by a fork that becomes another program at once.
@pytest.mark.filterwarnings("ignore:os.fork.. was called:RuntimeWarning")
@pytest.mark.parametrize("lines", [True, False])
def test_ray_s_services_have_a_process_group_of_their_own_and_are_those_that_are_needed(lines: bool) -> None:
    names = ("start_monitor", "start_api_server", "start_log_monitor")
    own = [getattr(NODE, name) for name in names], SERVICES.ConsolePopen
    with ray_interior.left_alone(on_loopback=True, with_lines=lines):
        assert [getattr(NODE, name) is before for name, before in zip(names, own[0], strict=True)] == [
            False,
            False,
            lines,
        ]
        # As Ray starts a raylet; what Ray's code does of itself is the next one.
        started = SERVICES.start_ray_process(["sleep", "60"], "raylet", fate_share=False)
    beside = SERVICES.start_ray_process(["sleep", "60"], "raylet", fate_share=False)
    try:
        assert os.getpgid(started.process.pid) == started.process.pid
        assert os.getpgid(beside.process.pid) == os.getpgrp(), "the broken variant"
    finally:
        for each in (started, beside):
            each.process.kill()
            each.process.wait()
    assert ([getattr(NODE, name) for name in names], SERVICES.ConsolePopen) == own


class Looks:
    """Stands for what Ray knows of a cluster: the node is there at the third look."""

    at = 3
    taken = 0

    def _initialize_global_state(self, options: Any) -> None:
        """Takes what Ray is told of the head."""

    def node_table(self) -> list[dict[str, str]]:
        """Returns the records of nodes."""
        Looks.taken += 1
        return [{"NodeID": "another"}] + [{"NodeID": "ours"}] * (Looks.taken >= self.at)


@pytest.mark.parametrize(("comes", "looks"), [(3, 3), (10**6, 501)])
def test_a_node_is_found_as_soon_as_it_is_there_and_one_that_does_not_come_is_left_to_ray(
    monkeypatch: pytest.MonkeyPatch, comes: int, looks: int
) -> None:
    asked: list[tuple[str, str]] = []
    clock = [0.0]
    monkeypatch.setattr(SERVICES, "get_node", lambda *of: asked.append(of) or "its record")
    monkeypatch.setattr(STATE, "GlobalState", Looks)
    monkeypatch.setattr(Looks, "at", comes)
    monkeypatch.setattr(Looks, "taken", 0)
    monkeypatch.setattr(ray_interior.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(ray_interior.time, "sleep", lambda seconds: clock.append(clock.pop() + seconds))
    own = SERVICES.get_node
    with ray_interior.left_alone(on_loopback=True, with_lines=True):
        assert SERVICES.get_node("127.0.0.1:6379", "ours") == "its record"
    assert SERVICES.get_node is own
    assert asked == [("127.0.0.1:6379", "ours")], "Ray says itself what is wrong with a node"
    assert abs(Looks.taken - looks) <= 1, "fifty looks in the second that Ray lets pass between two"


FORK = """
import atexit, importlib, os
from fedray.runtime import ray_interior

worker = importlib.import_module("ray._private.worker")
ray_interior.let_forks_end()
atexit.unregister = lambda ends: os._exit(3 if ends is worker.shutdown else 4)
for begun in (True, False):
    worker.is_initialized = lambda: begun
    child = os.fork()
    if child == 0:
        os._exit(5)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_fork_leaves_ray_s_connections_to_its_parent() -> None:
    """Its parent would hang at its own end if the fork ended them."""
    ran = subprocess.run([sys.executable, "-c", FORK], capture_output=True, timeout=120, text=True)
    assert ran.stdout.split() == ["3", "5"], ran.stderr


def test_a_pattern_of_the_user_s_own_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOGS.stdout_deduplicator, "skip_re", None)
    monkeypatch.setattr(LOGS.stderr_deduplicator, "skip_re", "mine")
    ray_interior.say_nothing_of_losses()
    for text in (
        "A worker died or was killed while executing a task by",
        "The node with node id: c7 has been marked dead",
        "Raylet is terminated. Termination is unexpected. Possible reasons include: ...\n    and twenty lines",
    ):
        assert LOGS.stdout_deduplicator.skip_re.search(text)
    assert LOGS.stderr_deduplicator.skip_re == "mine"


def test_lines_of_parties_are_shown_by_us_and_never_by_ray(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ray names the actor's class, merges lines that are alike, and shows what its own services have to say."""
    dispatcher, own = LOGS.global_worker_stdstream_dispatcher, WORKER.print_to_stdstream
    service = {"pid": "raylet", "ip": "10.0.0.1", "lines": ["E no exporter"], "is_err": True, "localhost": "10.0.0.1"}
    party = service | {"pid": "7", "lines": ["loss 0.5", "loss 0.5"], "is_err": False}

    def begin(**_: Any) -> None:
        shown = WORKER.print_to_stdstream  # as Ray does, which keeps it
        dispatcher.add_handler("ray_print_logs", lambda batch: shown(batch, ignore_prefix=False))

    monkeypatch.setattr(transport.ray, "init", begin)
    taken: list[tuple[Any, ...]] = []
    try:
        transport._init("auto", True)
        dispatcher.emit(dict(service))
        ray_interior.show_lines(lambda *line: taken.append(line), outside=False)
        for batch in (service, party):
            dispatcher.emit(dict(batch))
    finally:
        dispatcher.remove_handler("ray_print_logs")
    assert taken == [("10.0.0.1", 7, ["loss 0.5", "loss 0.5"], False)]
    assert capsys.readouterr() == ("", "")
    assert WORKER.print_to_stdstream is own, "what the program does with Ray itself is its own affair"


def test_outside_of_the_cluster_lines_are_read_back_from_ray_s_own_form(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By what Ray itself makes of them there: colours and names before them, and no address where it is its own."""
    monkeypatch.setattr(CLIENT_LINES, "stdstream", CLIENT_LINES.stdstream)
    monkeypatch.setattr(transport.ray, "init", lambda **_: None)
    sent: queue.Queue[Any] = queue.Queue()
    service = importlib.import_module("ray.util.client.server.logservicer").StdStreamHandler(sent)
    lines = ["loss 0.5", "loss 0.5", "(one pid=9) of its own", "a\rb", ""]
    batch = {"ip": "10.0.0.1", "localhost": "10.0.0.1", "is_err": False, "actor_name": "RayParty"}
    service.handle(batch | {"pid": "7", "lines": lines})
    service.handle(batch | {"pid": "8", "ip": "10.0.0.2", "lines": ["W careful"], "is_err": True})
    service.handle(batch | {"pid": "raylet", "lines": ["E no exporter"]})
    told = [(one.level, one.msg) for one in sent.queue]
    transport._init("ray://10.0.0.1:10001", True)
    taken: list[tuple[Any, ...]] = []
    for show in (False, True):
        if show:
            ray_interior.show_lines(lambda *line: taken.append(line), outside=True)
        for level, msg in told:
            CLIENT_LINES.stdstream(None, level, msg)
    assert taken == [("", 7, [line], False) for line in lines] + [("10.0.0.2", 8, ["W careful"], True)]
    assert capsys.readouterr() == ("", "")
