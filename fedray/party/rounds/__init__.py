# SPDX-License-Identifier: Apache-2.0
"""What runs inside a party during private sums: a contributor's end, a server's end, a compute party's end."""
