# SPDX-License-Identifier: Apache-2.0
"""Nodes of a cluster: what Ray is started with on a party's machine, what is written down of it, and how it ends."""
