# SPDX-License-Identifier: Apache-2.0
"""Models that several parties train together."""
