# SPDX-License-Identifier: Apache-2.0
"""The driver's half of rounds: it opens sessions, announces rounds and watches them. Sees what was opened."""
