# SPDX-License-Identifier: Apache-2.0
"""Lines between nodes: messages between parties over TCP and TLS that go on where a link was cut."""
