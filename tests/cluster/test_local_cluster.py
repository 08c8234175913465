# SPDX-License-Identifier: Apache-2.0
"""`address="local"`: what a program prints, what it leaves behind, and how it may end."""

import os
import signal
import time

import pytest

BEGIN = """
import os, sys, time
import fedray as sf
before = dict(os.environ)
sf.init(["alice", "bob"], seed=1)
alice, bob = sf.PYU("alice"), sf.PYU("bob")
"""


def test_a_program_prints_its_own_lines_and_leaves_nothing(program):
    run = program(
        BEGIN.replace("seed=1", "threads=2")
        + """
def noisy(n):
    print("printed in a party"); print("and on stderr", file=sys.stderr)
    return n
print(sf.reveal(bob(lambda a: a + 1)(alice(noisy)(1).to(bob))))
names = ["OMP_NUM_THREADS", "TF_CPP_MIN_LOG_LEVEL"]
print(sf.reveal(alice(lambda: [os.environ.get(name) for name in names])()), sf.reveal(alice(os.nice)(0)) == os.nice(0))
print([os.environ.get(name) for name in names])
sf.shutdown()
print(sorted(k for k in set(before) | set(os.environ) if before.get(k) != os.environ.get(k)))
"""
    )
    assert run.finish() == (0, "2\n['2', '2'] True\n[None, None]\n[]\n", "")
    assert run.left() == []
    assert list(run.home.iterdir()) == []


def test_a_program_that_fails_shows_its_own_traceback_only(program):
    run = program(BEGIN + "busy = alice(time.sleep)(60); sf.reveal(bob(abs)(-1)); raise ValueError('mine')")
    code, out, err = run.finish()
    assert (code, out) == (1, "")
    assert err.startswith("Traceback")
    assert err.endswith("ValueError: mine\n")
    assert err.count("  File ") == 1
    assert run.left() == []


def test_a_killed_party_is_lost_within_seconds_and_the_next_session_starts_and_then_ray_itself(program):
    run = program(
        BEGIN
        + """
import shutil, signal
pid = sf.reveal(bob(os.getpid)())
held = bob(time.sleep)(600)
began = time.monotonic()
os.kill(pid, signal.SIGKILL)
try:
    sf.wait([alice(abs)(-1), held])
except sf.errors.PartyLost as error:
    print(error.party, "lost", time.monotonic() - began < 10)
sf.shutdown()
sf.init(["alice", "bob"])
print(sf.reveal(sf.PYU("bob")(abs)(-2)))
sf.shutdown()
import ray
ray.init(logging_level="ERROR", include_dashboard=False, log_to_driver=False, _temp_dir=os.environ["RAY_TMPDIR"] + "/r")
print(ray.get(ray.remote(lambda: "plain").remote(), timeout=60))
try:
    sf.init(["alice"])
except sf.errors.PlanError as error:
    print(error)
sf.init(["alice"], "auto")
print(sf.reveal(sf.PYU("alice")(abs)(-7)))
sf.shutdown()
print(ray.is_initialized())
ray.shutdown()
shutil.rmtree(os.environ["RAY_TMPDIR"] + "/r")
"""
    )
    code, out, err = run.finish(200)
    assert out.splitlines() == [
        "bob lost True",
        "2",
        "plain",
        "Ray is running in this process already; use sf.init(..., address='auto') to run on it",
        "7",
        "True",
    ], err
    assert code == 0
    assert run.left() == []


def test_functions_of_a_module_beside_the_program_and_init_in_a_thread(program, tmp_path):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "beside.py").write_text("def double(v):\n    return 2 * v\n")
    run = program(
        """
import threading
import fedray as sf
from beside import double
thread = threading.Thread(target=sf.init, args=(["alice"],))
thread.start(); thread.join()
print(sf.reveal(sf.PYU("alice")(double)(4)))
"""
    )
    assert run.finish() == (0, "8\n", "")
    assert run.left() == []


def test_ray_may_be_imported_first(program):
    run = program("import ray\n" + BEGIN + "print(sf.reveal(alice(abs)(-3)))")
    assert run.finish() == (0, "3\n", "")
    assert run.left() == []
    assert list(run.home.iterdir()) == []


def test_control_c_reaches_the_program_and_not_its_parties_and_ends_it_in_seconds(program):
    run = program(
        BEGIN
        + """
pids = sf.reveal([alice(os.getpid)(), bob(os.getpid)()])
held = alice(lambda: time.sleep(3) or "slept on")()
try:
    print("ready", flush=True)
    sf.reveal(held)
except KeyboardInterrupt:
    print(sf.reveal(held), pids == sf.reveal([alice(os.getpid)(), bob(os.getpid)()]))
try:
    print("again", flush=True)
    sf.reveal([alice(time.sleep)(600), bob(time.sleep)(600)])
except KeyboardInterrupt:
    print("interrupted")
"""
    )
    assert run.read_line() == "ready"
    time.sleep(0.5)
    run.interrupt()
    assert run.read_line() == "slept on True"
    assert run.read_line() == "again"
    time.sleep(0.5)
    began = time.monotonic()
    run.interrupt()
    assert run.finish(30) == (0, "interrupted\n", "")
    assert run.left() == []
    assert time.monotonic() - began < 15


def test_control_c_while_ray_starts(program):
    run = program("print('ready', flush=True)\n" + BEGIN)
    assert run.read_line() == "ready"
    time.sleep(2.5)
    run.interrupt()
    code, _, err = run.finish(60)
    assert code != 0
    assert "KeyboardInterrupt" in err
    assert run.left() == []


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_program_takes_its_cluster_along(program, sign):
    run = program(BEGIN + "print('ready', flush=True); sf.reveal(alice(time.sleep)(600))")
    assert run.read_line() == "ready"
    os.kill(run.process.pid, sign)
    run.finish(30)
    left = run.left(90)
    if sign == signal.SIGKILL:  # nobody was there to tidy up: a folder of logs stays, and no process
        left = [each for each in left if not each.startswith(str(run.files))]
    assert left == []


def test_two_programs_at_once_do_not_meet(program):
    source = (
        BEGIN + "print('ready', flush=True); time.sleep(3); print(sf.reveal(alice(os.getppid)()) > 0); sf.shutdown()"
    )
    runs = [program(source), program(source)]
    assert [run.finish() for run in runs] == [(0, "ready\nTrue\n", "")] * 2
    assert [run.left() for run in runs] == [[], []]


def test_output_of_parties_is_shown_where_the_log_level_asks_for_it(program):
    run = program(
        BEGIN.replace("seed=1", "log_level='INFO'")
        + "sf.wait(alice(print)('printed in a party')); time.sleep(2); sf.shutdown()"
    )
    code, out, err = run.finish()
    assert code == 0
    assert "printed in a party" in out + err


def test_resources_by_a_name_of_their_own_are_there_and_the_token_is_asked_for_and_not_in_sight(program):
    run = program(
        """
import os, subprocess, sys
import fedray as sf
sf.init(["alice", "bob"], resources={"alice": {"alice": 1, "CPU": 1}, "bob": {"bob": 2}})
print(sf.reveal(sf.PYU("alice")(abs)(-1)))
print(os.environ["RAY_AUTH_MODE"], len(os.environ["RAY_AUTH_TOKEN"]))
lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
print(os.environ["RAY_AUTH_TOKEN"] in lines)
import ray
wrong = dict(os.environ, RAY_AUTH_TOKEN="0" * 64, RAY_NUM_REDIS_GET_RETRIES="2")  # two seconds in place of twenty
print(subprocess.run([sys.executable, "-c", f"import ray; ray.init({ray.get_runtime_context().gcs_address!r})"],
                     env=wrong, capture_output=True, timeout=100).returncode != 0)
sf.shutdown()
try:
    sf.init(["alice"], resources={"alice": {"CPU": 10000}})
except sf.errors.PlanError as error:
    print(error)
"""
    )
    code, out, err = run.finish(200)
    assert (code, err) == (0, "")
    asked = "resources: party 'alice' asks for 10000 CPU; no host has that, the hosts have "
    assert out.startswith(f"1\ntoken 64\nFalse\nTrue\n{asked}")
    assert run.left() == []
