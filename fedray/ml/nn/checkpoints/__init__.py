# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a `fit`: what is kept when, which one a run goes on from, and what stands in its way."""
