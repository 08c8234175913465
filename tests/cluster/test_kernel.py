# SPDX-License-Identifier: Apache-2.0
"""A notebook's kernel that is interrupted, in `init` and in `fit`, and restarted while a session runs."""

import os
import queue
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.slow

TAG = "FEDRAY_TEST"

SET_UP = """
import os
from fedray.data.ndarray import load
from fedray.ml.nn import FLModel
from fedray.security.aggregation import SecureAggregator
alice, bob, charlie = (sf.PYU(name) for name in ("alice", "bob", "charlie"))
def ones(*shape):
    def make():
        import numpy as np
        return np.ones(shape, np.float32)
    return make
x = load({alice: alice(ones(3000, 4))(), bob: bob(ones(3000, 4))()})
y = load({alice: alice(ones(3000))(), bob: bob(ones(3000))()})
def build():
    from fedray.ml.nn.numpy import SoftmaxRegression
    return SoftmaxRegression(4, 3)
model = FLModel(server=charlie, device_list=[alice, bob], model=build, strategy="fed_avg_w", backend="numpy",
                aggregator=SecureAggregator(charlie, [alice, bob]))
pids = sf.reveal([party(os.getpid)() for party in (alice, bob, charlie)])
"""
INIT = "print('begun', flush=True); sf.init(['alice', 'bob', 'charlie'], seed=1)"
FIT = "model.fit(x, y, batch_size=1, epochs=1000, verbose=2)"


class Kernel:
    """A kernel of its own, whose every descendant can be found.

    It is terminated if it has not ended ten seconds after it was asked to, four times as long as a notebook's.
    """

    def __init__(self, folder: Path) -> None:
        from jupyter_client.manager import KernelManager

        self.files = Path(tempfile.mkdtemp(prefix="f", dir="/tmp"))  # short: Ray puts sockets in there
        self._tag = uuid.uuid4().hex
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "FEDRAY_"))}
        self.said = folder / "said"
        self._manager: Any = KernelManager()
        self._manager.shutdown_wait_time = 20.0
        self._file = self.said.open("w")  # a restarted kernel writes to it, too
        variables = kept | {TAG: self._tag, "RAY_TMPDIR": str(self.files)}
        self._manager.start_kernel(env=variables, cwd=str(folder), stdout=self._file, stderr=self._file)
        self._connect()

    def _connect(self) -> None:
        self._client: Any = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=120)

    def run(self, cell: str, *, interrupt_at: str | None = None, leave_at: str | None = None) -> str:
        """Runs a cell and returns what it shows; interrupts it, or lets it run on, when it shows a text."""
        asked, shown = self._client.execute(cell), ""
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline:
            try:
                message = self._client.get_iopub_msg(timeout=1)
            except queue.Empty:
                assert self._manager.is_alive(), shown
                continue
            if message["parent_header"].get("msg_id") != asked:
                continue
            content = message["content"]
            if message["msg_type"] == "status" and content["execution_state"] == "idle":
                return shown
            shown += content.get("text", "") + content.get("ename", "")
            if leave_at is not None and leave_at in shown:
                return shown
            if interrupt_at is not None and interrupt_at in shown:
                interrupt_at = None
                self._manager.interrupt_kernel()
        raise AssertionError(f"the cell did not end: {shown}")

    def restart(self) -> list[int]:
        """Returns the signals that it took, beside the interrupt that comes first."""
        self._client.stop_channels()
        sent: list[int] = []
        send = self._manager.provisioner.send_signal

        async def send_and_note(number: int) -> None:
            sent.append(int(number))
            await send(number)

        self._manager.provisioner.send_signal = send_and_note
        self._manager.restart_kernel()
        self._connect()
        return sent[1:]

    def left(self) -> list[str]:
        """Returns processes of earlier kernels that are alive after at most 30 s, and files they left."""
        deadline = time.monotonic() + 30
        while (found := self._processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found + [str(path) for path in self.files.iterdir()]

    def _processes(self) -> list[str]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(TAG) == self._tag and process.pid != self._manager.provisioner.pid:
                    found.append(f"{process.pid} {process.name()}")
            except psutil.Error:
                continue
        return found

    def end(self) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        self.left()
        self._file.close()
        shutil.rmtree(self.files, ignore_errors=True)


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    started = Kernel(tmp_path)
    yield started
    started.end()


def test_cells_are_interrupted_and_the_kernel_restarted_with_a_session_and_amid_a_fit(kernel: Kernel) -> None:
    kernel.run("import time\nimport fedray as sf")
    assert kernel.run(INIT, interrupt_at="begun").endswith("KeyboardInterrupt")
    assert kernel.run(INIT) == "begun\n"
    assert kernel.run(SET_UP) == ""
    assert kernel.run(FIT, interrupt_at="1/1000").endswith("KeyboardInterrupt")
    # The same parties, with the same model, go on; nobody is stuck in the round that was broken off.
    again = "print(len(model.fit(x, y, batch_size=3000, epochs=1, verbose=0).epoch))"
    assert kernel.run(again) == "1\n"
    assert kernel.run("print(pids == sf.reveal([p(os.getpid)() for p in (alice, bob, charlie)]))") == "True\n"
    assert kernel.restart() == []
    assert kernel.left() == []
    kernel.run("import fedray as sf")
    assert kernel.run(INIT) == "begun\n"
    assert kernel.run(SET_UP) == ""
    assert "1/1000" in kernel.run(FIT, leave_at="1/1000")
    assert kernel.restart() == []
    assert kernel.left() == []
    assert "***" not in kernel.said.read_text()  # no stack dump
