# SPDX-License-Identifier: Apache-2.0
"""The table of scenes whose objects are known, and the classes among them."""

from collections.abc import Sequence
from pathlib import Path

from fieldfare.common.errors import InputError

from ...scenes import table as scenes
from .labels import SUFFIXES, read_objects
from .objects import UNNAMED, Objects

LabelledScene = scenes.LabelledScene[Objects]
"""A part of a raster and its objects."""

ONLY = "object"
"""The class where nothing names one."""


def read_table(table: Path, *, bands: int) -> tuple[list[LabelledScene], list[str]]:
    """`scenes.table.read_table` of objects."""
    return scenes.read_table(table, read_objects, SUFFIXES, bands=bands)


def classes_of(scenes: Sequence[LabelledScene], wanted: str | None) -> tuple[str, ...]:
    """The classes to learn, in order, and a check that every object has one.

    Args:
        wanted: names between commas; all that the labels name, by the alphabet, when None.

    Raises:
        InputError: a wanted class that no training scene has, or objects without a name where
            there are several classes.
    """
    train = [scene for scene in scenes if scene.split == "train"]
    named = {name for scene in train for name in scene.labels.names}
    if wanted is not None:
        found = tuple(name.strip() for name in wanted.split(",") if name.strip())
        if not found or len(set(found)) < len(found):
            raise InputError(f"--classes {wanted}: give different names between commas")
    else:
        found = tuple(sorted(named - {UNNAMED})) or (ONLY,)
    if UNNAMED in named and len(found) > 1:
        bad = next(scene for scene in train if UNNAMED in scene.labels.names)
        raise InputError(
            f"{bad.image}: some of its objects have no class, and there are {len(found)}; name "
            "them in the column class"
        )
    lacking = [name for name in found if name not in named and UNNAMED not in named]
    if train and lacking:
        raise InputError(
            f"--classes: no training scene has an object of class {lacking[0]}; the labels have "
            f"{', '.join(sorted(named)) or 'none'}"
        )
    return found
