# SPDX-License-Identifier: Apache-2.0
"""The notebook on secure aggregation, executed: with a model that needs no framework, and as it stands (`slow`)."""

import re
from pathlib import Path

import nbformat
import pytest
from notebooks.executed import CHATTER, changed, execute, printed, read

AGGREGATION = Path(__file__).parents[2] / "notebooks" / "02_secure_aggregation.ipynb"
NUMPY = {
    """    from tensorflow import keras
    model = keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(),
                              keras.layers.Dense(32, activation='relu'), keras.layers.Dense(10, activation='softmax')])
    model.compile(loss='categorical_crossentropy', optimizer=keras.optimizers.Adam(0.005), metrics=['accuracy'])
    return model""": """    from fedray.ml.nn.numpy import SoftmaxRegression
    return SoftmaxRegression(28 * 28, 10, learning_rate=0.5)""",
    "sum(array.size for array in models['plain'].global_model().get_weights())": "28 * 28 * 10 + 10",
    "categorical_y=True": "categorical_y=False",
    "model=build": "model=build, backend='numpy'",
    "address='local'": "address='auto'",
    "killer = threading.Timer(1.5, os.kill, [dave_pid, signal.SIGKILL])\n": """
class Killer:
    rounds = 0
    def on_train_batch_begin(self, *_):
        self.rounds += 1
        if self.rounds == 10:
            os.kill(dave_pid, signal.SIGKILL)

from fedray.ml.nn.callbacks import USED_HOOKS
for hook in USED_HOOKS:
    if not hasattr(Killer, hook):
        setattr(Killer, hook, lambda *_: None)
killer = threading.Thread()
""",
    "epochs=2)": "epochs=2, callbacks=[Killer()])",
}
"""Text of the notebook on secure aggregation -> the same with a model that needs no framework, on the cluster that is
there. It trains so fast that Dave has to be killed by the round and not by the clock.
"""


@pytest.fixture(
    scope="module", params=[pytest.param(NUMPY, id="numpy"), pytest.param({}, id="whole", marks=pytest.mark.slow)]
)
def aggregation(
    request: pytest.FixtureRequest, joined: None, tmp_path_factory: pytest.TempPathFactory
) -> nbformat.NotebookNode:
    """Returns the notebook on secure aggregation, executed: parties and masks are as they stand in it."""
    notebook = read(AGGREGATION)
    changed(notebook, request.param)
    execute(notebook, tmp_path_factory.mktemp("notebook"))
    return notebook


def test_aggregation_without_a_line_of_chatter(aggregation: nbformat.NotebookNode) -> None:
    assert printed(aggregation, "stderr") == ""
    assert CHATTER.findall(printed(aggregation, "stdout")) == []


def test_masks_cancel_and_hide(aggregation: nbformat.NotebookNode) -> None:
    text = printed(aggregation, "stdout")
    assert "bit for bit the same results: True" in text
    assert "in every word: True" in text
    found, chance = re.findall(
        r"correlation of masked with plain words\s+([-+]\d\.\d+)   \(by chance within (\d\.\d+)\)", text
    )[0]
    assert abs(float(found)) < 1.5 * float(chance)


def test_the_dropout_is_survived_and_every_attack_refused(aggregation: nbformat.NotebookNode) -> None:
    text = printed(aggregation, "stdout")
    assert "party='dave'" in str(aggregation)
    assert re.search(r"epoch: 2/2 - loss:\d\.\d+ accuracy:0\.\d+ val_loss:\d\.\d+ val_accuracy:0\.[89]", text)
    assert "WENT THROUGH" not in text
    assert "7 of 7 attacks were refused" in str(aggregation)
