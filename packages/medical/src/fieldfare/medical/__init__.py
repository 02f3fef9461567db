# SPDX-License-Identifier: Apache-2.0
"""Segmentation of medical volumes; empty so far, see the package's README."""

__version__ = "0.0.2"
