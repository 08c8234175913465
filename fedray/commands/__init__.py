# SPDX-License-Identifier: Apache-2.0
"""The command line: one module per command, and the parser in front of them."""
