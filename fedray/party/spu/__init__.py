# SPDX-License-Identifier: Apache-2.0
"""What runs inside a compute party of an SPU."""
