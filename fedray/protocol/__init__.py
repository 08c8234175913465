# SPDX-License-Identifier: Apache-2.0
"""Private sums between parties, as pure state machines on bytes: no Ray, no machine learning, no files, no clock.

`scheme` says what a sum is, `config` and `policy` what a session agrees on and what a party accepts, `handshake` makes
its keys. `plain`, `masking` and `recovery` are the schemes.
"""
