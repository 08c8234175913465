# SPDX-License-Identifier: Apache-2.0
"""All benchmarks, one after the other, as one Markdown page and one JSON file.

python tests/benchmarks/run.py [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
FULL = {
    "epochs": ["--parties", "2", "4", "8"],
    "rounds": [],
    "startup": [],
    "masking": ["--repeats", "5"],
    "online": [],
    "parties": [],
    "checkpoints": [],
}
QUICK = {
    "epochs": ["--samples", "6000", "--repeats", "1"],
    "rounds": ["--parameters", "35000", "1000000", "--repeats", "1"],
    "startup": ["--repeats", "1"],
    "masking": ["--parameters", "1000000", "--repeats", "1"],
    "online": [],
    "parties": ["--parties", "4", "10"],
    "checkpoints": ["--samples", "6000", "--epochs", "1", "--repeats", "1"],
}


def run(name: str, arguments: list[str]) -> None:
    """Runs one benchmark and lets it print its table."""
    print(f"\n## {name}\n", flush=True)
    subprocess.run([sys.executable, str(HERE / f"{name}.py"), *arguments], check=True)


def main() -> None:
    """Runs all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, one repeat")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in (QUICK if options.quick else FULL).items():
            file = Path(folder, f"{name}.json")
            run(name, [*arguments, "--json", str(file)])
            results |= json.loads(file.read_text())
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
