# SPDX-License-Identifier: Apache-2.0
"""The words of models that are handed over in pieces, by framework."""
