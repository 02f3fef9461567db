# SPDX-License-Identifier: Apache-2.0
"""Precoding and power allocation, by graph neural networks and by conventional methods."""

__version__ = "0.4.0"
