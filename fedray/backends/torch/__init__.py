# SPDX-License-Identifier: Apache-2.0
"""PyTorch models. The only folder that imports torch, inside functions, when a model is made."""
