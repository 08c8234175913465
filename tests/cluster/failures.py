# SPDX-License-Identifier: Apache-2.0
"""What happens to a run on several machines when something fails: each measured, as the table of `deploy/README.md`.

    python tests/cluster/failures.py      # as root, on Linux; prints the table. Takes a quarter of an hour

Alice, bob and charlie train; charlie is the server as well, has the head, and the driver runs there. Whoever is late is
done without after a minute. Each failure meets a run under way.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cluster.hosts import Host
from cluster.several import ROOT, keys, several, start

DEADLINE = 60.0  # twice the longest cut: so long Ray may need for an order that the cut has met

DRIVER = f"""
import sys, time
import numpy as np
import fedray as sf
from fedray.data.ndarray import load
from fedray.ml.nn import FLModel
from fedray.security.aggregation import SecureAggregator


def rows(number):
    return np.random.default_rng(number).random((64, 360), np.float32)


def labels(number):
    return np.random.default_rng(number).integers(0, 10, 64)


def build():
    from fedray.ml.nn.numpy import SoftmaxRegression

    return SoftmaxRegression(360, 10, learning_rate=0.05)


def hog():
    return sum(len(bytearray(1 << 28)) for _ in range(1)) + len([bytearray(1 << 28) for _ in range(40)])


seconds = float(sys.argv[1])
try:
    sf.init(["alice", "bob", "charlie"], address="auto", seed=7)
    parties = alice, bob, charlie = [sf.PYU(name) for name in ("alice", "bob", "charlie")]
    x = load({{party: party(rows)(n) for n, party in enumerate(parties)}})
    y = load({{party: party(labels)(n) for n, party in enumerate(parties)}})
    aggregator = SecureAggregator(charlie, list(parties), round_timeout={DEADLINE})
    model = FLModel(server=charlie, device_list=list(parties), model=build, aggregator=aggregator, backend="numpy")
    model.fit(x, y, epochs=1, batch_size=4, verbose=0)
    print("begun", flush=True)
    if "hog" in sys.argv:
        sf.wait([alice(hog)()])
    end, epochs, lost = time.monotonic() + seconds, 0, []
    while time.monotonic() < end:
        history = model.fit(x, y, epochs=1, batch_size=4, verbose=0)
        epochs += 1
        for one in history.dropouts:
            if one.party not in lost:
                lost.append(one.party)
                print(f"without {{one.party}} from round {{one.round}} on: {{one.reason}}", flush=True)
    print("done", "with all" if not lost else "without " + ", ".join(lost), flush=True)
except sf.errors.FedRayError as error:
    print(f"{{type(error).__name__}}: {{error}}", flush=True)
sf.shutdown()
print("over", flush=True)
"""


@dataclass
class Run:
    """A driver's program under way.

    Attributes:
        lines: What it has printed, and when.
    """

    machine: Host
    arguments: tuple[str, ...]
    lines: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.machine.home / "driver.py").write_text(DRIVER)
        command = " ".join(["exec", "python", "-u", "driver.py", *self.arguments, "2>&1"])
        self._process = self.machine.begin(command, PYTHONPATH=str(ROOT))
        self._fresh: queue.SimpleQueue[tuple[float, str]] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._fresh.put((time.monotonic(), line.rstrip()))
        self._fresh.put((time.monotonic(), "END"))

    def until(self, pattern: str, seconds: float) -> tuple[float, str]:
        """Returns the first line that fits, and when it came.

        Raises:
            TimeoutError: There is none in so many seconds.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                moment, line = self._fresh.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise TimeoutError(f"no {pattern!r} within {seconds:.0f} s: {self.said}") from None
            self.lines.append((moment, line))
            if re.search(pattern, line):
                return moment, line
            if line == "END":
                raise TimeoutError(f"it ended without {pattern!r}: {self.said}")

    @property
    def said(self) -> str:
        """All that it has printed."""
        return "\n".join(line for _, line in self.lines)


@dataclass
class Row:
    """What came of one failure.

    Attributes:
        what: The failure.
        said: What the driver printed of it first.
        after: Seconds from the failure until then.
        became: What became of the run.
        over: Seconds from the failure until the program had ended.
        all: Everything that the driver printed.
    """

    what: str
    said: str
    after: float
    became: str
    over: float
    all: str


def party_process(machine: Host) -> int:
    """Returns the process of the party that was started last on a machine."""
    found = {}
    for pid in machine.processes():
        with contextlib.suppress(OSError):
            if b"ray::RayParty" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found[Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]] = pid
    return found[max(found, key=int)]


def named(machine: Host, name: bytes) -> int:
    """Returns a process on a machine by what is in its command line."""
    found = [pid for pid in machine.processes() if name in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return min(found)


def observed(
    machines: dict[str, Host], what: str, fail: Callable[[], object], seconds: float, first: str, *more: str
) -> Row:
    """Returns what comes of a failure in the midst of a run.

    Args:
        machines: All.
        what: The failure, for the table.
        fail: Makes it happen, and undoes it where it passes; runs beside the driver.
        seconds: How long the run would train.
        first: What the first line looks like that the driver prints of it.
        *more: Arguments of the driver.
    """
    run = Run(machines["charlie"], (f"{seconds:g}", *more))
    run.until("^begun$", 120)
    time.sleep(2)
    began = time.monotonic()
    doing = threading.Thread(target=fail, daemon=True)
    doing.start()
    moment, said = run.until(first, seconds + 150)
    if not re.search("^(done|[A-Z]\\w+: )", said):
        _, became = run.until("^(done|[A-Z]\\w+: )", seconds + 150)
    else:
        became = said
    over, _ = run.until("^over$", 60)
    doing.join(120)
    return Row(what, said, moment - began, became, over - began, run.said)


def killed_party(machines: dict[str, Host]) -> Row:
    alice = machines["alice"]
    return observed(
        *(machines, "alice's process is killed"),
        *(lambda: os.kill(party_process(alice), signal.SIGKILL), 20, "without alice|Lost"),
    )


def killed_node(machines: dict[str, Host]) -> Row:
    row = observed(machines, "alice's machine loses its power", machines["alice"].kill, 20, "without alice|Lost")
    start(machines, "alice")
    return row


def cut(machines: dict[str, Host], seconds: float) -> Row:
    def fail() -> None:
        machines["alice"].cut()
        time.sleep(seconds)
        machines["alice"].heal()

    return observed(machines, f"alice's link is cut for {seconds:g} s", fail, seconds + 20, "alice|^done|Lost|Error")


def slow(machines: dict[str, Host]) -> Row:
    return observed(
        *(machines, "alice's link becomes slow: 50 ms each way, 20 Mbit/s", lambda: machines["alice"].slow(50, 20)),
        *(20, "alice|^done|Lost|Error"),
    )


def frozen(machines: dict[str, Host]) -> Row:
    pid: list[int] = []

    def fail() -> None:
        pid.append(party_process(machines["alice"]))
        os.kill(pid[0], signal.SIGSTOP)
        time.sleep(DEADLINE + 20)
        with contextlib.suppress(ProcessLookupError):  # the session may have ended meanwhile, and she with it
            os.kill(pid[0], signal.SIGCONT)

    what = f"alice's process is frozen for {DEADLINE + 20:g} s, past the round's deadline"
    return observed(machines, what, fail, DEADLINE + 30, "alice|^done|Lost|Error")


def exhausted(machines: dict[str, Host]) -> Row:
    limit = machines["alice"].home / ".fedray" / "parties" / "alice" / "party.toml"
    before = limit.read_text()
    limit.write_text(re.sub(r"(?m)^\[limits\]\n", '[limits]\nmemory = "3 GB"\n', before))
    try:
        what = "alice's program asks for more memory than her party.toml allows"
        return observed(machines, what, lambda: None, 10, "Error", "hog")
    finally:
        limit.write_text(before)


def full_disk(machines: dict[str, Host]) -> Row:
    alice = machines["alice"]
    ledgers = str(keys(alice) / "ledger")
    # As the party's process sees it: a disk of its own for what it writes down.
    within = ["nsenter", "-t", str(named(alice, b"raylet/raylet")), "-m"]
    subprocess.run([*within, "mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", ledgers], check=True)
    try:
        fill = [*within, "dd", "if=/dev/zero", f"of={ledgers}/fill", "bs=4k"]
        what = "the disk is full on which alice's ledger is written"
        return observed(machines, what, lambda: subprocess.run(fill, capture_output=True), 20, "^done|Lost|Error")
    finally:
        subprocess.run([*within, "umount", "-l", ledgers], check=True)


def killed_head(machines: dict[str, Host]) -> Row:
    def fail() -> None:
        os.kill(named(machines["charlie"], b"gcs_server"), signal.SIGKILL)

    return observed(machines, "the head's own process (GCS) is killed", fail, 20, "^done|Lost|Error")


SCENARIOS: dict[str, Callable[[dict[str, Host]], Row]] = {
    "party": killed_party,
    "cut 10": lambda machines: cut(machines, 10),
    "cut 30": lambda machines: cut(machines, 30),
    "frozen": frozen,
    "memory": exhausted,
    "disk": full_disk,
    "node": killed_node,
    "slow": slow,
    "head": killed_head,  # last: the cluster is gone with it
}


def table(rows: list[Row]) -> str:
    """Returns the table as Markdown."""
    head = ["| what happens | the driver prints | after | what becomes of the run | the program ends after |"]
    head += ["|---|---|---|---|---|"]
    body = [
        f"| {row.what} | `{row.said[:400]}` | {row.after:.0f} s | {row.became[:200]} | {row.over:.0f} s |"
        for row in rows
    ]
    return "\n".join(head + body)


if __name__ == "__main__":
    with several("alice", "bob") as hosts:
        print(table([scenario(hosts) for scenario in SCENARIOS.values()]))
