# SPDX-License-Identifier: Apache-2.0
"""Linear and softmax regression in NumPy alone: for rows that need no network, and to show what a backend is."""
