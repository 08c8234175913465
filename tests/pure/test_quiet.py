# SPDX-License-Identifier: Apache-2.0
"""Start-up chatter is dropped, everything else written to the descriptor arrives; and the garbage collector rests."""

import gc
import os

import pytest

from fedray.backends.collector import uncollected
from fedray.backends.keras.quiet import quiet

CHATTER = b"""\
2025-11-22 21:58:24.133489: I tensorflow/core/util/port.cc:153] oneDNN custom operations are on.
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
E0000 00:00:1795385264.133489    5845 cuda_platform.cc:52] failed call to cuInit: UNKNOWN ERROR (303)
I0000 00:00:1795385264.133489    5845 port.cc:153] oneDNN custom operations are on.
To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow.
"""


def test_known_chatter_is_dropped_and_the_rest_arrives_late(capfd):
    with quiet():
        os.write(2, CHATTER + b"disk is full\n" + CHATTER)
        assert capfd.readouterr().err == ""
    assert capfd.readouterr().err == "disk is full\n"
    os.write(2, CHATTER)
    assert capfd.readouterr().err.encode() == CHATTER


def test_an_error_in_the_block_leaves_the_descriptor_as_it_was(capfd):
    def fail():
        with quiet():
            os.write(2, b"the reason\n")
            raise ImportError("no framework")

    with pytest.raises(ImportError, match="no framework"):
        fail()
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "the reason\nafter\n"


@pytest.mark.parametrize("running", [True, False])
def test_an_import_leaves_the_garbage_collector_as_it_was(running):
    if not running:
        gc.disable()
    during = []

    def importing():
        with uncollected("framework"):
            during.append(gc.isenabled())
            raise ImportError

    with pytest.raises(ImportError):
        importing()
    after = gc.isenabled()
    gc.enable()
    assert (during, after) == ([False], running)


def test_what_an_import_makes_is_never_walked_over_again(monkeypatch):
    """Unless it was there before: then it is the user's own objects that would be left alone."""
    frozen = []
    monkeypatch.setattr(gc, "isenabled", lambda: True)
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(True))
    for name, expected in (("json", []), ("framework that is not there", [True])):
        with uncollected(name):
            pass
        assert frozen == expected
