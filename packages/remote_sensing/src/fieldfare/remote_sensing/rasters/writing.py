# SPDX-License-Identifier: Apache-2.0
"""The outputs of one job: names that can be written, files that appear together."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from fieldfare.common.errors import InputError
from fieldfare.common.files import atomic_path

RASTERS, PICTURES = (".tif", ".tiff"), (".png",)


def check_suffix(option: str, path: Path | None, suffixes: tuple[str, ...]) -> None:
    """Refuse a name that says another format than the one written; raises InputError."""
    if path is not None and path.suffix.lower() not in suffixes:
        raise InputError(f"{option} {path}: name it {', '.join('*' + name for name in suffixes)}")


def check_disk(target: Path, need: int) -> None:
    """Refuse a job whose finished rows cannot find room beside its output.

    Args:
        need: bytes.

    Raises:
        InputError: less is free.
    """
    free = shutil.disk_usage(target.absolute().parent).free
    if free < need:
        raise InputError(
            f"{target}: its disk has {free / 1e9:.1f} GB free, {need / 1e9:.1f} GB are needed; "
            "free some, or choose another folder"
        )


@contextlib.contextmanager
def together(*targets: Path | None) -> Iterator[tuple[Path | None, ...]]:
    """Yield a temporary path for each target; all are renamed when all are written, or none is."""
    with contextlib.ExitStack() as stack:
        yield tuple(
            None if target is None else stack.enter_context(atomic_path(target))
            for target in targets
        )
