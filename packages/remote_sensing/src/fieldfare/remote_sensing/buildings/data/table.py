# SPDX-License-Identifier: Apache-2.0
"""The table of scenes whose buildings are known."""

from pathlib import Path

from ...scenes import table as scenes
from ...vectors.reading import FORMATS, PARQUET
from .labels import MASKS, Labels, read_labels

LABELS = (*MASKS, *FORMATS, *PARQUET, ".txt")
"""Suffixes of labels that are looked for in folders."""

LabelledScene = scenes.LabelledScene[Labels]
"""A part of a raster and its buildings."""


def read_table(table: Path, *, bands: int) -> tuple[list[LabelledScene], list[str]]:
    """`scenes.table.read_table` of buildings."""
    return scenes.read_table(table, read_labels, LABELS, bands=bands)


def read_scene(image: Path, labels: Path, *, bands: int) -> tuple[LabelledScene, list[str]]:
    """`scenes.table.read_scene` of buildings."""
    return scenes.read_scene(image, labels, read_labels, bands=bands)
