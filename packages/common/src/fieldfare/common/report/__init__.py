# SPDX-License-Identifier: Apache-2.0
"""Pages that a person reads: one HTML file each, that needs no network."""

from .page import data_uri, render, shown, versions

__all__ = ["data_uri", "render", "shown", "versions"]
