# SPDX-License-Identifier: Apache-2.0
"""Keras models on TensorFlow. The only folder that imports these two, inside functions, when a model is made."""
