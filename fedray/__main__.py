# SPDX-License-Identifier: Apache-2.0
"""`python -m fedray`: the same as the command `fedray`."""

import sys

from fedray.commands.cli import main

if __name__ == "__main__":  # a party's process imports this file, too, and is not to start the command again
    sys.exit(main())
