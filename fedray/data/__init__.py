# SPDX-License-Identifier: Apache-2.0
"""Arrays whose rows are spread over parties, how they are loaded and split, and the bundled MNIST file."""
