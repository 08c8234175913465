# SPDX-License-Identifier: Apache-2.0
"""Scheme masking (SECAGG part A): a masked sum in one exchange, over a view that may shrink; and scheme plain. Pure."""
