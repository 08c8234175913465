# SPDX-License-Identifier: Apache-2.0
"""Values in additive shares between the compute parties of an SPU: their layout and what can be done to them. Pure."""
