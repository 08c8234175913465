# SPDX-License-Identifier: Apache-2.0
"""The one door out of a party, and the record of everything that left through it."""
