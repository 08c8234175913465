# SPDX-License-Identifier: Apache-2.0
"""How calls travel between the driver and the parties, and the session that is running."""
