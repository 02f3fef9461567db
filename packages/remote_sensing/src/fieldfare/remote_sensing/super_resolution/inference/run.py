# SPDX-License-Identifier: Apache-2.0
"""From a raster to its enlarged copy: read, prepare, restore, assemble, write."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fieldfare.common.windows import stream

from ...rasters.bands import finite
from ...rasters.geotiff import BLOCK, provenance_tags, to_sample_type, write_geotiff
from ...rasters.opening import environment, files_of
from ...rasters.preview import before_after
from ...rasters.reading import fill_missing
from ...rasters.rows import RowStore, kept_rows
from ...rasters.writing import check_disk, output_nodata, together, write_scene
from .consistency import ProjectedRows
from .job import InferSettings, Job, identity, prepare
from .restore import MARGIN, Restorer, enlarged_excess, restore_bands
from .softening import RADIUS, softened


def infer(
    path: Path,
    target: Path,
    settings: InferSettings,
    restorers: Sequence[Restorer],
    *,
    deviation: Path | None = None,
    preview: Path | None = None,
    store: Path | None = None,
    resume: bool = True,
    started: Callable[[Job], None] = lambda job: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Enlarge one raster.

    Args:
        target: the enlarged raster, replaced atomically at the end.
        restorers: of `settings.restorers()`.
        deviation: where the standard deviation over seeds goes, in the raster's unit.
        preview: where a picture of before and after goes.
        store: the output that the hidden folder of finished rows belongs to; target when None.
        resume: go on from finished rows of an interrupted run with the same settings.
        started: called with the job before the first tile.

    Returns:
        What was done, for `--json`: shape, range, tiles.
    """
    scale = restorers[0].scale
    with environment(allow_remote=settings.allow_remote):
        job = prepare(path, settings, restorers[0])
        with job.scene as scene:
            started(job)
            if scene.dense:
                check_disk(target, job.row_bytes)
            run, height = identity(settings), scene.height * scale
            with kept_rows(
                files_of(path), store or target, run, resume=resume, height=height
            ) as rows:
                _restore_rows(job, settings, restorers, rows, progress)
                tags = _tags(path, settings, job, restorers[0])
                with together(target, deviation, preview) as (enlarged, spread, picture):
                    assert enlarged is not None
                    write_scene(enlarged, rows, scene, scale, tags=tags, cog=settings.cog)
                    if spread:
                        _write_deviation(spread, job, rows, settings, tags)
                    if picture:
                        title = f"{scale} x"
                        before_after(scene, enlarged, job.values, picture, scale, title=title)
            return {
                "output": str(target),
                "width": scene.width * scale,
                "height": scene.height * scale,
                "bands": list(scene.bands),
                "range": [job.values.low, job.values.high],
                "tiles": len(job.tiles),
                "consistent": job.consistent,
                "softening": job.softening,
                **job.assessment.to_json(),
            }


def _restore_rows(
    job: Job,
    settings: InferSettings,
    restorers: Sequence[Restorer],
    rows: RowStore,
    progress: Callable[[int, int], None],
) -> None:
    """Stream the tiles of a scene; finished rows go to the store in the raster's sample type."""
    scene, scale, bands = job.scene, job.scale, len(job.scene.bands)
    low, span = np.float32(job.values.low), np.float32(job.values.high - job.values.low)
    given, columns = (axis.region for axis in job.tiles.axes)
    around = RADIUS if job.softening else 0

    def scaled(values: np.ndarray) -> np.ndarray:
        seen: np.ndarray = (values.astype(np.float32) - low) / span
        return seen

    def read(start: tuple[int, ...]) -> np.ndarray | None:
        values, valid = scene.read_around(start, settings.tile, MARGIN + around)
        inside = slice(around, values.shape[1] - around)
        if not valid[:, inside, inside].any():
            return None
        return softened(fill_missing(scaled(values), valid), job.softening)[:, inside, inside]

    def predict(tiles: np.ndarray, starts: np.ndarray) -> np.ndarray:
        seen = np.clip(tiles, 0, 1) if job.beyond else tiles
        restored = [finite(restore_bands(r, seen, starts)) for r in restorers]
        if job.beyond:
            outside = enlarged_excess(tiles - seen, scale)
            restored = [np.clip(part, 0, 1) + outside for part in restored]
        return np.concatenate(restored, axis=1)

    def keep(first: int, block: np.ndarray) -> None:
        samples = block.reshape(len(restorers), bands, *block.shape[1:])
        if not (job.beyond or job.consistent):
            samples = np.clip(samples, 0, 1)
        samples = samples * span
        here = (first, first + block.shape[1] // scale)
        across = (scene.left, scene.left + scene.width)
        valid = scene.valid(scene.read(here, across), here, across)
        if not valid.any():
            rows.add(block.shape[1])
            return
        valid = valid.repeat(scale, axis=1).repeat(scale, axis=2)
        arrays = {
            "values": to_sample_type(samples[0] + low, scene.dtype, output_nodata(scene), valid)
        }
        if len(restorers) > 1:
            spread = samples.std(axis=0, ddof=1)
            spread[~valid] = np.nan
            arrays["deviation"] = spread
        rows.add(block.shape[1], **arrays)

    def keep_inside(first: int, block: np.ndarray) -> None:
        left = (scene.left - columns[0]) * scale
        keep(first, block[..., left : left + scene.width * scale])

    wanted = (scene.top + rows.done // scale, scene.top + scene.height)
    chain = ProjectedRows(wanted, given, job.bounds, job.tolerance, keep_inside)
    first = chain.first if job.consistent else wanted[0]

    def write(row: int, block: np.ndarray) -> None:
        here = (given[0] + row // scale, given[0] + (row + block.shape[1]) // scale)
        if not job.consistent:
            keep(here[0], block)
            return
        values = scene.read(here, columns)
        valid = scene.valid(values, here, columns)
        both = (np.tile(array, (len(restorers), 1, 1)) for array in (scaled(values), valid))
        chain.add(block, *both)

    stream(
        read,
        predict,
        write,
        job.tiles,
        channels=job.channels,
        scale=scale,
        batch=settings.batch or restorers[0].batch,
        blend="hann",
        from_row=(first - given[0]) * scale,
        progress=progress,
    )


def _write_deviation(
    target: Path,
    job: Job,
    rows: RowStore,
    settings: InferSettings,
    tags: dict[str, str],
) -> None:
    scene = job.scene

    def nothing(count: int) -> np.ndarray:
        shape = (len(scene.bands), count, scene.width * job.scale)
        return np.full(shape, np.nan, np.float32)

    write_geotiff(
        target,
        rows.read("deviation", BLOCK, nothing),
        scene,
        job.scale,
        dtype=np.dtype("float32"),
        nodata=float("nan"),
        tags=tags | {"FIELDFARE_CONTENT": f"standard deviation over {settings.uncertainty} seeds"},
        descriptions=[f"standard deviation of band {band}" for band in scene.bands],
        like_scene=False,
        cog=settings.cog,
    )


def _tags(path: Path, settings: InferSettings, job: Job, restorer: Restorer) -> dict[str, str]:
    """Provenance, behind the tags that the source had."""
    provenance = {
        "model": Path(settings.model).stem,
        "steps": getattr(restorer, "steps", 0),
        "sampler": settings.sampler,
        "seed": settings.seed,
        "range": str(job.values),
        "scale": job.scale,
        "tile": settings.tile,
        "overlap": settings.overlap,
        "consistent": job.consistent,
        "softening": job.softening,
        **job.assessment.to_json(),
    }
    own: dict[str, str] = job.scene.dataset.tags()
    return own | provenance_tags(path, provenance)
