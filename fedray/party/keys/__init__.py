# SPDX-License-Identifier: Apache-2.0
"""A party's own identity, and the folder on its machine that keeps it."""
