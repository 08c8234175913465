# SPDX-License-Identifier: Apache-2.0
"""What a session is tried out with: cluster definitions for one machine, and data sets dealt to parties.

Example:
    >>> sf.SPU(sf.utils.testing.cluster_def(["alice", "bob"]))
    SPU(alice, bob)
"""
