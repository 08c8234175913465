# SPDX-License-Identifier: Apache-2.0
"""What makes many small Keras models in one process cheap."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def kernels_kept() -> Iterator[None]:
    """Lets TensorFlow keep its prepared operations when a model is seeded: most of a test's time goes into them.

    They are dropped so that a random operation without a seed of its own begins anew. For tests whose models have none:
    Keras's initializers and layers do, as theirs come from a seed at every call.
    """
    from fedray.backends.keras.start import frameworks

    frameworks(threads=1)
    from tensorflow.python.eager import context

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(context.pywrap_tfe, "TFE_ContextClearCaches", lambda _context: None)
        yield
