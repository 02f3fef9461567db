# SPDX-License-Identifier: Apache-2.0
"""Hidden folders beside the outputs, where workers write; what a killed run left is removed."""

from pathlib import Path

from fieldfare.common import files

from .items import Item


def temporary_paths(item: Item) -> tuple[Path, ...]:
    """One path for each output: same file name, in a folder that no other attempt has."""
    folder = files.temporary_name()
    return tuple(output.parent / folder / output.name for output in item.outputs)


def remove_stale(parent: Path) -> None:
    """Remove the temporary folders in parent, except those of another driver that is alive here.

    Of a driver on another host nothing is known; two runs that write to one folder at the same
    time share a manifest, whose lock keeps the second one out.
    """
    files.remove_stale(parent, locked=True)
