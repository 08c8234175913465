# SPDX-License-Identifier: Apache-2.0
"""The cryptographic tools of the schemes: keys, keystreams, secret sharing, graphs, reused buffers. Pure."""
