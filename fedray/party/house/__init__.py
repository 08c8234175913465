# SPDX-License-Identifier: Apache-2.0
"""What the operator of a party's machine has laid down in its `party.toml`, and the driver cannot change."""
