# SPDX-License-Identifier: Apache-2.0
"""Learned precoding and power control; empty so far, see the package's README."""

__version__ = "0.1.0"
