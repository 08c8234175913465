# SPDX-License-Identifier: Apache-2.0
"""The driver's notation of an SPU: its definition, the device, and the names of what it holds."""
