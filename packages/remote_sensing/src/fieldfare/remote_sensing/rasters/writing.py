# SPDX-License-Identifier: Apache-2.0
"""The outputs of one job: names that can be written, files that appear together."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fieldfare.common.errors import InputError
from fieldfare.common.files import atomic_path

from .geotiff import BLOCK, write_geotiff
from .reading import Scene
from .rows import RowStore

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


def output_nodata(scene: Scene) -> float | None:
    """The nodata value of the output: the scene's, or NaN for float bands that have none."""
    if scene.nodata is None and scene.dtype.kind == "f":
        return float("nan")
    return scene.nodata


def write_scene(
    target: Path,
    rows: RowStore,
    scene: Scene,
    scale: int,
    *,
    tags: dict[str, str],
    cog: bool,
) -> None:
    """Write the finished rows, kept as `values`, as the scene's raster, enlarged by scale.

    Args:
        tags, cog: of `write_geotiff`.
    """
    nodata = output_nodata(scene)

    def nothing(count: int) -> np.ndarray:
        shape = (len(scene.bands), count, scene.width * scale)
        return np.full(shape, nodata or 0, scene.dtype)

    write_geotiff(
        target,
        rows.read("values", BLOCK, nothing),
        scene,
        scale,
        dtype=scene.dtype,
        nodata=nodata,
        tags=tags,
        descriptions=[scene.dataset.descriptions[band - 1] for band in scene.bands],
        cog=cog,
    )
