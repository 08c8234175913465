# SPDX-License-Identifier: Apache-2.0
"""Private sums as the driver sees them: aggregators, and the rounds they run."""
