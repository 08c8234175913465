# SPDX-License-Identifier: Apache-2.0
"""Verified sums (SECAGG section 16): what lets a party see whether the sum that it is handed is the sum. Pure."""
