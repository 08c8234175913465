# SPDX-License-Identifier: Apache-2.0
"""PyTorch models in processes of their own: the same numbers as in one process, and no TensorFlow anywhere."""

import json
import subprocess
import sys

from inline.test_torch_runs import bits, noisy, torch_world
from inline.torch_models import NEEDS_TORCH

import fedray as sf

pytestmark = NEEDS_TORCH


def loaded():
    """Which of the frameworks this process has imported; runs inside a party."""
    import sys

    return sorted({"tensorflow", "keras", "torch", "lightning"} & set(sys.modules))


def test_on_ray_it_is_the_same_to_the_last_bit_and_nobody_imports_tensorflow(start, cluster):
    ends = []
    for address in ("inline", cluster, cluster):
        fed = torch_world(start, address)
        model = fed.model(noisy)
        history = model.fit(fed.x, fed.y, epochs=2, batch_size=8, verbose=0).history
        ends.append((bits(model), history))
        if address != "inline":
            found = sf.reveal({device.name: device(loaded)() for device in (*fed.devices, fed.server)})
            assert found == {"alice": ["torch"], "bob": ["torch"], "server": []}
        sf.shutdown()
    assert ends[0] == ends[1] == ends[2]


def test_the_demo_runs_in_pytorch(joined):
    command = [sys.executable, "-m", "fedray", "demo", "--train-samples", "512", "--epochs", "1"]
    done = subprocess.run([*command, "--backend", "torch", "--json"], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["backend"] == "torch"
    for curves in (result["federated"], result["alone"]):
        assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= set(curves)
        assert 0.0 < curves["val_accuracy"][0] < 1.0
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
