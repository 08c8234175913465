# SPDX-License-Identifier: Apache-2.0
"""Private sums between parties, as pure state machines on bytes: no Ray, no machine learning, no files, no clock.

`scheme` says what a sum is, `config` what a session agrees on, `policy` and `memory` what a party accepts, `member`
what it brings along. `handshake` makes a session's keys, and with them a party's end of it. `fixed_point` and
`pipeline` turn values into words, `opened` and `packing` are about their sum, and `checks` lets a party see whether it
is one. `masking` (with `plain`), `recovery` and `sharing` are the schemes; `schemes` is their table.
"""
