# SPDX-License-Identifier: Apache-2.0
"""What runs inside a party: its objects, its door, its ledger, its trainer, and the server's side."""
