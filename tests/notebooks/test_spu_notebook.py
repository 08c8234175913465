# SPDX-License-Identifier: Apache-2.0
"""The notebook on computing on shares, executed where the extra is installed (`slow`).

What it runs, each protocol and program, the contract tests of the SPU run in small.
"""

import importlib.util
import re
from pathlib import Path

import pytest
from notebooks.executed import execute, read
from notebooks.executed import printed as written

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "03_spu.ipynb"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("spu") is None,
        reason="needs the extra: pip install 'fedray[spu]' (a wheel for CPython 3.11 on Linux and Apple silicon)",
    ),
]


@pytest.fixture(scope="module")
def printed(joined: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns what the notebook prints when it is executed anew."""
    notebook = read(NOTEBOOK)
    execute(notebook, tmp_path_factory.mktemp("notebook"))
    assert written(notebook, "stderr") == ""
    return written(notebook, "stdout")


def test_the_mean_of_a_million_numbers_is_right(printed: str) -> None:
    (error,) = re.findall(r"mean \d+\.\d+, error against NumPy (\S+)", printed)
    assert float(error) < 1e-8
    (error,) = re.findall(r"sum of 3 x 1,000,000 floats in \S+ s, largest error (\S+)", printed)
    assert float(error) < 1e-9


def test_every_program_agrees_with_numpy_on_every_cluster(printed: str) -> None:
    found = re.findall(r"(SEMI2K|ABY3|CHEETAH), \w+ parties\s+(\S+) s   largest error (?:in a weight )?(\S+)", printed)
    assert len(found) == 9
    limits = [1e-3] * 3 + [1e-5] * 3 + [5e-3] * 3
    for (name, seconds, error), limit in zip(found, limits, strict=True):
        assert float(error) < limit, name
        assert float(seconds) > 0
    assert "runtime_config['beaver_type'] does not say who" in printed
