# SPDX-License-Identifier: Apache-2.0
"""From a hazy raster to a clear one: read, prepare, dehaze, assemble, write."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.windows import Window

from fieldfare.common.errors import InputError
from fieldfare.common.trust.knowledge import Judgement
from fieldfare.common.windows import Plan, band_bytes, plan, stream

from ... import __version__
from ...rasters.bands import finite
from ...rasters.geotiff import BLOCK, provenance_tags, to_sample_type
from ...rasters.opening import GDAL_CACHE_MB, environment, files_of
from ...rasters.preview import before_after
from ...rasters.ranges import choose_range
from ...rasters.reading import Scene, ValueRange, fill_missing
from ...rasters.rows import RowStore, kept_rows
from ...rasters.writing import check_disk, output_nodata, together, write_scene
from .dehazers import Dehazer, load_dehazer, model_path
from .familiarity import judgement_of


@dataclass(frozen=True)
class InferSettings:
    """What the result depends on, besides the raster itself.

    Attributes:
        model: packaged name, path, or `dark-channel`.
        bands: 1-based; all but alpha when None.
        value_range: `LOW:HIGH`, `auto` (from 0, or the smallest value where that is negative, to
            the largest, or percentiles where these are outliers), or None for the preset of the
            sample type: 0:255 for uint8, 0:1 for float32 within it, else auto. The model does not
            see values outside; they are carried over.
        window: (row, column, height, width) of the raster to dehaze.
        tile, overlap: in pixels.
        batch: tiles dehazed together; chosen by device when None.
        allow_remote: the raster may lie on the network.
    """

    model: str
    bands: tuple[int, ...] | None = None
    value_range: str | None = None
    window: tuple[int, int, int, int] | None = None
    tile: int = 256
    overlap: int = 64
    batch: int | None = None
    device: str = "auto"
    precision: str = "auto"
    cog: bool = True
    allow_remote: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.tile:
            raise InputError(f"--overlap {self.overlap}: must be from 0 to {self.tile - 1}")

    def dehazer(self) -> Dehazer:
        """Ready for tiles of this size.

        Raises:
            InputError: no such model, or one that takes larger tiles.
        """
        found = load_dehazer(self.model, device=self.device, precision=self.precision)
        if self.tile < found.least:
            raise InputError(f"--tile {self.tile}: this model takes {found.least} or more")
        return found


@dataclass(frozen=True)
class Job:
    """One raster made ready: opened scene, value range and tile plan.

    Attributes:
        beyond: whether values of the scene lie outside the range.
        judgement: how the scene stands to what the model knows; None where it does not say.
    """

    scene: Scene
    values: ValueRange
    beyond: bool
    tiles: Plan
    dehazer: Dehazer
    judgement: Judgement | None

    @property
    def memory(self) -> int:
        """Estimate in bytes of what inference holds besides the model and one batch."""
        bands = len(self.scene.bands)
        rows = 4 * bands * self.scene.width * BLOCK
        return 3 * band_bytes(self.tiles, bands) + rows + GDAL_CACHE_MB * 2**20

    @property
    def row_bytes(self) -> int:
        """What all finished rows take on disk where every row holds data."""
        pixels: int = self.scene.width * self.scene.height
        return pixels * len(self.scene.bands) * int(self.scene.dtype.itemsize)


def prepare(path: Path, settings: InferSettings, dehazer: Dehazer) -> Job:
    """Open and check a raster; reads it once for its extremes, and some windows for its looks.

    Raises:
        InputError: whatever is wrong with the raster, its values or the settings.
    """
    window = None
    if settings.window:
        row, column, height, width = settings.window
        window = Window(column, row, width, height)
    scene = Scene(path, settings.bands, window)
    try:
        values, beyond = choose_range(scene, settings.value_range, from_zero=True)
        over = dehazer.over(scene, values)
        judgement = judgement_of(scene, values, model_path(settings.model))
    except BaseException:
        scene.dataset.close()
        raise
    region = [
        (first, first + count)
        for first, count in ((scene.top, scene.height), (scene.left, scene.width))
    ]
    sides = (scene.dataset.height, scene.dataset.width)
    tiles = plan(sides, settings.tile, settings.overlap, region=region)
    return Job(scene, values, beyond, tiles, over, judgement)


def infer(
    path: Path,
    target: Path,
    settings: InferSettings,
    dehazer: Dehazer,
    *,
    preview: Path | None = None,
    store: Path | None = None,
    resume: bool = True,
    started: Callable[[Job], None] = lambda job: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Dehaze one raster.

    Args:
        target: the clear raster, replaced atomically at the end.
        dehazer: of `settings.dehazer()`.
        preview: where a picture of before and after goes.
        store: the output that the hidden folder of finished rows belongs to; target when None.
        resume: go on from finished rows of an interrupted run with the same settings.
        started: called with the job before the first tile.

    Returns:
        What was done, for `--json`: shape, range, tiles, trust.
    """
    with environment(allow_remote=settings.allow_remote):
        job = prepare(path, settings, dehazer)
        with job.scene as scene:
            started(job)
            if scene.dense:
                check_disk(target, job.row_bytes)
            run, where = identity(settings), store or target
            with kept_rows(files_of(path), where, run, resume=resume, height=scene.height) as rows:
                _dehaze_rows(job, settings, rows, progress)
                tags = _tags(path, settings, job)
                with together(target, preview) as (cleared, picture):
                    assert cleared is not None
                    write_scene(cleared, rows, scene, 1, tags=tags, cog=settings.cog)
                    if picture:
                        before_after(
                            scene, cleared, job.values, picture, 1, title="clear", stretched=False
                        )
            return {
                "output": str(target),
                "width": scene.width,
                "height": scene.height,
                "bands": list(scene.bands),
                "range": [job.values.low, job.values.high],
                "tiles": len(job.tiles),
                "trust": job.judgement.to_json() if job.judgement else None,
            }


def _dehaze_rows(
    job: Job,
    settings: InferSettings,
    rows: RowStore,
    progress: Callable[[int, int], None],
) -> None:
    """Stream the tiles of a scene; finished rows go to the store in the raster's sample type."""
    scene, dehazer, margin = job.scene, job.dehazer, job.dehazer.margin
    low, span = np.float32(job.values.low), np.float32(job.values.high - job.values.low)
    inside = slice(margin, margin + settings.tile)

    def read(start: tuple[int, ...]) -> np.ndarray | None:
        values, valid = scene.read_around(start, settings.tile, margin)
        if not valid.any():
            return None
        return fill_missing((values.astype(np.float32) - low) / span, valid)

    def predict(tiles: np.ndarray, starts: np.ndarray) -> np.ndarray:
        seen = np.clip(tiles, 0, 1) if job.beyond else tiles
        cleared = finite(dehazer(seen)).clip(0, 1)
        return cleared + (tiles - seen)[..., inside, inside] if job.beyond else cleared

    def write(first: int, block: np.ndarray) -> None:
        here = (scene.top + first, scene.top + first + block.shape[1])
        across = (scene.left, scene.left + scene.width)
        valid = scene.valid(scene.read(here, across), here, across)
        if not valid.any():
            rows.add(block.shape[1])
            return
        values = to_sample_type(block * span + low, scene.dtype, output_nodata(scene), valid)
        rows.add(block.shape[1], values=values)

    stream(
        read,
        predict,
        write,
        job.tiles,
        channels=len(scene.bands),
        batch=settings.batch or dehazer.batch,
        blend="hann",
        from_row=rows.done,
        progress=progress,
    )


def identity(settings: InferSettings) -> dict[str, Any]:
    """What results must agree on to be of one run: settings, weights, version."""
    kept = asdict(settings)
    del kept["batch"], kept["cog"], kept["allow_remote"]
    path = model_path(settings.model)
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path else ""
    return kept | {"weights": digest, "version": __version__}


def _tags(path: Path, settings: InferSettings, job: Job) -> dict[str, str]:
    """Provenance, behind the tags that the source had."""
    provenance = {
        "model": Path(settings.model).stem,
        "range": str(job.values),
        "tile": settings.tile,
        "overlap": settings.overlap,
        "trust": job.judgement.to_json() if job.judgement else None,
    }
    own: dict[str, str] = job.scene.dataset.tags()
    return own | provenance_tags(path, provenance)
