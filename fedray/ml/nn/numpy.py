# SPDX-License-Identifier: Apache-2.0
"""Models for `FLModel(backend="numpy")`: linear and softmax regression that need no framework."""

from fedray.backends.numpy.regression import LinearRegression, SoftmaxRegression

__all__ = ["LinearRegression", "SoftmaxRegression"]
