# SPDX-License-Identifier: Apache-2.0
"""What is kept of a run on a disk: plain values, two files of one name, a party's own part, and its passes."""
