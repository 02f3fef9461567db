# SPDX-License-Identifier: Apache-2.0
"""The same answers for less: networks asked in turn, and only where it is worth it."""
