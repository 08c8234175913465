# SPDX-License-Identifier: Apache-2.0
"""Runs on Ray that are killed with SIGKILL, driver, party, server or all, and go on in a new cluster: the same bits."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, os, signal, sys
import numpy as np
import fedray as sf
from fedray.data.ndarray import load
from fedray.ml.nn import FLModel
from fedray.ml.nn.numpy import SoftmaxRegression
from fedray.runtime.session import Session
from fedray.security.aggregation import SecureAggregator

folder, mode, whom, step = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
parties = ['alice', 'bob', 'carol']
sf.init([*parties, 'server'], address='local', seed=3)
devices, server = [sf.PYU(name) for name in parties], sf.PYU('server')
processes = {one.name: sf.reveal(one(os.getpid)()) for one in [*devices, server]} | {'driver': os.getpid()}
draw = np.random.default_rng(1)
x = load({device: draw.normal(size=(30, 4)) for device in devices})
y = load({device: draw.integers(0, 3, size=30) for device in devices})
aggregator = SecureAggregator(server, devices, on_dropout=mode)
build = lambda: SoftmaxRegression(4, 3, learning_rate=0.1, momentum=0.9)
model = FLModel(server, devices, build, aggregator=aggregator, backend='numpy')
get, count = Session.get, [0]

def watched(self, *args, **more):
    count[0] += 1
    if count[0] == step:
        for name in (processes if whom == 'all' else [whom]):
            if name != 'driver':
                os.kill(processes[name], signal.SIGKILL)
        if whom in ('driver', 'all'):
            os.kill(os.getpid(), signal.SIGKILL)
    return get(self, *args, **more)

Session.get = watched
kept = sf.Checkpoint(folder, every=2)
history = model.fit(x, y, batch_size=6, epochs=8, verbose=0, validation_data=(x, y), checkpoint=kept)
trained = model.global_model()
weights = trained.kernel.tobytes().hex() + trained.bias.tobytes().hex()
print(json.dumps([weights, history.global_history, history.epoch, count[0]]))
"""

KILLS = [("driver", 0.15), ("alice", 0.2), ("all", 0.15), ("server", 0.2), ("driver", 0.15)]
"""Whom, and after which part of the steps of a whole run; together they are less than a run has."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_runs_that_are_killed_on_ray(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    def run(folder, mode, whom="nobody", step=0):
        command = [sys.executable, str(program), str(tmp_path / folder), mode, whom, str(step)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    for mode in ("abandon", "recover"):
        whole = run(f"{mode} whole", mode)
        assert whole.returncode == 0, whole.stderr
        *expected, steps = json.loads(whole.stdout)
        ended = 0
        for whom, part in KILLS:
            ended += run(mode, mode, whom, int(part * steps)).returncode != 0
        assert ended == len(KILLS)
        done = run(mode, mode)
        assert done.returncode == 0, done.stderr
        *found, _ = json.loads(done.stdout)
        assert found == expected
