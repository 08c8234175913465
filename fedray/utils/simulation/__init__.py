# SPDX-License-Identifier: Apache-2.0
"""Public data sets, dealt to parties as if each had always held its share."""
