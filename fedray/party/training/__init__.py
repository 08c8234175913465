# SPDX-License-Identifier: Apache-2.0
"""What runs inside a data party beside the sums: its model, its training, the order of its rows."""
