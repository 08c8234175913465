# SPDX-License-Identifier: Apache-2.0
"""Programs on shared values, run by the compiler and the runtime of the package `spu`. Nothing here trains a model."""
