# SPDX-License-Identifier: Apache-2.0
"""`address="local"`: what a program prints, what it leaves behind, and how it may end.

A cluster takes seconds to start, so that each program here asks as much of its own as fits: what is to be found out at
the start, while it runs, and by the way in which it ends.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from intruder import reached

BEGIN = """
import os, sys, time
import fedray as sf
before = dict(os.environ)
sf.init(["alice", "bob"], seed=1)
alice, bob = sf.PYU("alice"), sf.PYU("bob")
"""

FIRST = """
import ray._private.runtime_env.uv_runtime_env_hook as hook
hook._get_uv_run_cmdline = lambda: ["uv", "run", "program.py"]  # as if this program had been started so
import os, signal, subprocess, sys, threading, time
import fedray as sf
before = dict(os.environ)
signal.signal(signal.SIGTERM, lambda *_: print("heard"))
resources = {"alice": {"alice": 1, "CPU": 1}, "bob": {"bob": 2}}
thread = threading.Thread(target=lambda: sf.init(["alice", "bob"], threads=2, resources=resources))
thread.start(); thread.join()
alice, bob = sf.PYU("alice"), sf.PYU("bob")
os.kill(os.getpid(), signal.SIGTERM)
alice(print)("a secret of alice's")
sf.wait(alice(abs)(-1))
print(sf.runtime.session.current().transport._cluster._folder.path, flush=True)
input()
try:
    sf.reveal(alice(breakpoint)())
except sf.errors.PlanError as error:
    print(error)
def noisy(n):
    print("printed in a party"); print("and on stderr", file=sys.stderr)
    return n
print(sf.reveal(bob(lambda a: a + 1)(alice(noisy)(1).to(bob))))
names = ["OMP_NUM_THREADS", "TF_CPP_MIN_LOG_LEVEL"]
print(sf.reveal(alice(lambda: [os.environ.get(name) for name in names])()), sf.reveal(alice(os.nice)(0)) == os.nice(0))
print([os.environ.get(name) for name in names])
print(os.environ["RAY_AUTH_MODE"], len(os.environ["RAY_AUTH_TOKEN"]))
lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
print(os.environ["RAY_AUTH_TOKEN"] in lines)
import ray
look = "import sys, ray._raylet as ray; print(ray.GcsClient(address=sys.argv[1]).internal_kv_exists(b'x', None))"
for token in (os.environ["RAY_AUTH_TOKEN"], "0" * 64):
    done = subprocess.run([sys.executable, "-c", look, ray.get_runtime_context().gcs_address],
                          env=dict(os.environ, RAY_AUTH_TOKEN=token), capture_output=True, text=True, timeout=100)
    print(done.returncode, "token" in done.stderr)
pid = sf.reveal(bob(os.getpid)())
held = bob(time.sleep)(600)
began = time.monotonic()
os.kill(pid, signal.SIGKILL)
try:
    sf.wait([alice(abs)(-1), held])
except sf.errors.PartyLost as error:
    print(error.party, "lost", time.monotonic() - began < 60)
threading.Timer(0.2, sf.shutdown).start()
try:
    sf.reveal(alice(time.sleep)(600))
except sf.errors.NotInitialized:
    print("ended by another thread")
sf.shutdown()  # waits for the other
print(sorted(k for k in set(before) | set(os.environ) if before.get(k) != os.environ.get(k)))
"""

SECOND = """
sf.init(["alice", "bob"], seed=1)
from beside import double
held = bob(double)(4)
print(sf.reveal(held))
import warnings
warnings.simplefilter("ignore")  # newer versions of Python warn of a fork beside threads
child = os.fork()
if child == 0:
    signal.alarm(60)
    try:
        sf.reveal(held)
    except sf.errors.NotInitialized as error:
        sf.shutdown()
        os._exit(7 if str(os.getppid()) in str(error) else 1)
print("fork", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
import beside, importlib, pathlib
pathlib.Path(beside.__file__).write_text("def double(v):\\n    return 20 * v\\n")
print(sf.reveal(bob(importlib.reload(beside).double)(4)))
pids = sf.reveal([alice(os.getpid)(), bob(os.getpid)()])
gate = pathlib.Path(os.environ["RAY_TMPDIR"], "gate")
def sleep_until_it_opens():
    while not gate.exists():
        time.sleep(0.05)
    return "slept on"
held = alice(sleep_until_it_opens)()
try:
    print("ready", flush=True)
    sf.reveal(held)
except KeyboardInterrupt:
    gate.touch()
    print(sf.reveal(held), pids == sf.reveal([alice(os.getpid)(), bob(os.getpid)()]))
try:
    print("again", flush=True)
    sf.reveal([alice(time.sleep)(600), bob(time.sleep)(600)])
except KeyboardInterrupt:
    print("interrupted")
gate.unlink()
raise ValueError('mine')
"""


BREAKPOINT = (
    "party 'alice': breakpoint() has no terminal in a party's own process; use address='inline' to debug, where every "
    "party runs in the driver's process"
)


def listening(pid):
    """Returns the addresses at which a process listens; none where it has ended meanwhile."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return {found.laddr.ip for found in psutil.Process(pid).net_connections() if found.status == psutil.CONN_LISTEN}
    return set()


@pytest.mark.slow  # as the others that start a cluster; that one ends with nothing left is in the next test, too
def test_a_program_prints_its_own_lines_and_leaves_nothing(program, tmp_path):
    """Its first session is begun by a thread. It shows what parties see of the machine, by resources with names of
    their own, and that the token is asked for and not in sight; in the end a party is killed, is lost within seconds,
    another thread ends the session under a call that waits, and the next session starts; its fork is told whose it is.
    No other user of the machine and nobody on its networks gets at its cluster, whose folder holds nothing of the
    program's; and `breakpoint()` in a party is an error.

    Functions of a module beside the program reach its parties, as they are
    after an edit. Control-C reaches the program and not its parties. It ends by an error, with its own traceback only.
    """
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "beside.py").write_text("def double(v):\n    return 2 * v\n")
    run = program(FIRST + SECOND)
    run.files.chmod(0o1777)  # as the system's own folder for such files: everybody may look at what is in it
    assert run.read_line() == "heard"  # the program's own handler
    folder = Path(run.read_line())
    inside = sorted(folder.rglob("*"))
    assert sum(path.is_socket() for path in inside) >= 2
    assert [path for path in inside if "_ray_pkg_" in path.name or path.name.startswith("program_")] == []
    if os.geteuid() == 0:
        assert reached([folder, *inside]) == []
    heard = {ip for pid in run._alive() for ip in listening(pid)}
    assert heard
    assert heard <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    run.tell("go")
    first = [BREAKPOINT, "2", "['2', '2'] True", "[None, None]", "token 64", "False", "0 False", "1 True"]
    first += ["bob lost True", "ended by another thread", "[]", "8", "fork 7", "80"]
    assert [run.read_line() for _ in first] == first
    assert run.read_line() == "ready"
    time.sleep(0.2)  # by now it waits, on most machines; it may be interrupted before, too
    run.interrupt()
    assert run.read_line() == "slept on True"
    assert run.read_line() == "again"
    time.sleep(0.2)
    began = time.monotonic()
    run.interrupt()
    code, out, err = run.finish(30)
    assert (code, out) == (1, "interrupted\n"), err
    assert err.startswith("Traceback")
    assert err.endswith("ValueError: mine\n")
    assert err.count("  File ") == 1
    assert run.left() == []
    assert time.monotonic() - began < 60
    assert list(run.home.iterdir()) == []


@pytest.mark.slow
def test_what_the_machine_has_not_is_refused(program):
    """In small, of a cluster that is there already: `tests/cluster/test_joined_cluster.py`."""
    run = program(
        """
import fedray as sf
try:
    sf.init(["alice"], resources={"alice": {"CPU": 10000}})
except sf.errors.PlanError as error:
    print(error)
sf.init(["alice"], "inline")
print(sf.reveal(sf.PYU("alice")(abs)(-1)))
"""
    )
    code, out, err = run.finish(200)
    assert (code, err) == (0, "")
    refused, answered = out.splitlines()
    assert refused.startswith("resources: party 'alice' asks for 10000 CPU; no host has that, the hosts have ")
    assert answered == "1"
    assert run.left() == []


@pytest.mark.slow  # `tests/pure/test_signals.py` holds a signal back in one process
def test_control_c_while_ray_starts(program):
    """It comes at the worst moment: Ray is connected and does not know it yet. A new start would kill the program."""
    run = program(
        """
import signal
import ray._raylet
import fedray as sf
make = ray._raylet.CoreWorker
def interrupted(*arguments, **settings):
    ray._raylet.CoreWorker = make
    made = make(*arguments, **settings)
    signal.raise_signal(signal.SIGINT)
    return made
ray._raylet.CoreWorker = interrupted
try:
    sf.init(["alice"])
except KeyboardInterrupt:
    print("interrupted")
sf.init(["alice"])
print(sf.reveal(sf.PYU("alice")(abs)(-1)))
"""
    )
    told = "interrupted; Ray starts, which takes a few seconds more\n"
    assert run.finish(200) == (0, "interrupted\n1\n", told)
    assert run.left() == []


@pytest.mark.slow
def test_two_programs_at_once_do_not_meet_and_a_killed_one_takes_its_own_cluster_along(program):
    """One asks to be shown what its parties print. It ends by SIGTERM after the other has been killed beside it.

    What a program leaves that ends by itself or by Control-C, the tests above look for.
    """
    wait = "sf.reveal(alice(time.sleep)(600))"
    begin = BEGIN.replace('["alice", "bob"]', '["alice"]').replace(', sf.PYU("bob")', ", None")
    answer = "print('ready', flush=True); input(); print(sf.reveal(alice(os.getppid)()) > 0, flush=True); "
    killed = program(begin + answer + wait)
    talking = begin.replace("seed=1", "log_level='INFO'") + answer + f"alice(print)('in a party'); {wait}"
    ended = program(talking, PYTHONUNBUFFERED="1")
    for run in (killed, ended):  # both clusters run now
        assert run.read_line() == "ready"
    killed.tell("go")
    assert killed.read_line() == "True"
    os.kill(killed.process.pid, signal.SIGKILL)
    killed.finish(30)
    # nobody was there to tidy up: a folder of logs stays, and no process
    assert [each for each in killed.left(90) if not each.startswith(str(killed.files))] == []
    ended.tell("go")
    lines = sorted([ended.read_line(), ended.read_line()])  # in either order: one of them comes from a party
    assert lines == ["True", "alice: in a party"]
    os.kill(ended.process.pid, signal.SIGTERM)
    code, _, err = ended.finish(30)
    assert (code, err) == (128 + signal.SIGTERM, "")  # and no stack dump of Ray's
    assert ended.left(90) == []
