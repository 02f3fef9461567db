# SPDX-License-Identifier: Apache-2.0
"""From a raster to its enlarged copy: read, prepare, restore, assemble, write."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.windows import Window

from fieldfare.common.errors import InputError
from fieldfare.common.windows import Plan, band_bytes, plan, stream

from ... import __version__
from ...rasters.geotiff import BLOCK, provenance_tags, to_sample_type, write_geotiff
from ...rasters.opening import GDAL_CACHE_MB, environment, files_of
from ...rasters.ranges import spread_of
from ...rasters.reading import Scene, ValueRange, fill_missing
from ...rasters.rows import RowStore, kept_rows
from ...rasters.writing import check_disk, together
from .preview import before_after
from .restore import (
    MARGIN,
    DiffusionRestorer,
    Restorer,
    enlarged_excess,
    finite,
    load_restorer,
    model_path,
    restore_bands,
)


@dataclass(frozen=True)
class InferSettings:
    """What the result depends on, besides the raster itself.

    Attributes:
        model: packaged name, path, or `bicubic`.
        steps: solver steps; the model's default when None.
        bands: 1-based; all but alpha when None.
        value_range: `LOW:HIGH`, `auto` (smallest and largest value, or percentiles where these are
            outliers), or None for the preset of the sample type: 0:255 for uint8, 0:1 for float32
            within it, else auto. The model does not see values outside; they are carried over.
        window: (row, column, height, width) of the raster to enlarge.
        tile, overlap: in pixels of the raster.
        batch: tiles restored together; chosen by device when None.
        uncertainty: number of seeds, from `seed` on, whose standard deviation is written; 0 none.
        allow_remote: the raster may lie on the network.
    """

    model: str
    steps: int | None = None
    sampler: str = "multistep"
    seed: int = 0
    bands: tuple[int, ...] | None = None
    value_range: str | None = None
    window: tuple[int, int, int, int] | None = None
    tile: int = 64
    overlap: int = 16
    batch: int | None = None
    uncertainty: int = 0
    device: str = "auto"
    precision: str = "auto"
    cog: bool = True
    allow_remote: bool = False

    def __post_init__(self) -> None:
        if self.uncertainty == 1:
            raise InputError("--uncertainty 1: a deviation needs at least 2 seeds")
        if not 0 <= self.overlap < self.tile:
            raise InputError(f"--overlap {self.overlap}: must be from 0 to {self.tile - 1}")

    def restorers(self) -> list[Restorer]:
        """One for each seed; they share the network."""
        first = load_restorer(
            self.model,
            sampler=self.sampler,
            steps=self.steps,
            seed=self.seed,
            device=self.device,
            precision=self.precision,
        )
        if not self.uncertainty:
            return [first]
        if not isinstance(first, DiffusionRestorer):
            raise InputError(f"--uncertainty: model {self.model} has no randomness")
        return [first, *(first.with_seed(self.seed + k) for k in range(1, self.uncertainty))]


@dataclass(frozen=True)
class Job:
    """One raster made ready: opened scene, value range and tile plan.

    Attributes:
        beyond: whether values of the scene lie outside the range.
    """

    scene: Scene
    values: ValueRange
    beyond: bool
    tiles: Plan
    scale: int
    channels: int

    @property
    def memory(self) -> int:
        """Estimate in bytes of what inference holds besides the model and one batch."""
        width = self.scene.width * self.scale
        band = band_bytes(self.tiles, self.channels, self.scale)
        rows = 4 * self.channels * width * BLOCK
        return 3 * band + rows + GDAL_CACHE_MB * 2**20

    @property
    def row_bytes(self) -> int:
        """What all finished rows take on disk where every row holds data."""
        pixels: int = self.scene.width * self.scene.height * self.scale**2
        spread = 4 if self.channels > len(self.scene.bands) else 0
        return pixels * len(self.scene.bands) * (int(self.scene.dtype.itemsize) + spread)


def prepare(path: Path, settings: InferSettings, scale: int) -> Job:
    """Open and check a raster; reads it once for its extremes.

    Raises:
        InputError: whatever is wrong with the raster, its values or the settings.
    """
    window = None
    if settings.window:
        row, column, height, width = settings.window
        window = Window(column, row, width, height)
    scene = Scene(path, settings.bands, window)
    try:
        values, beyond = choose_range(scene, settings.value_range)
    except BaseException:
        scene.dataset.close()
        raise
    tiles = plan(
        (scene.dataset.height, scene.dataset.width),
        settings.tile,
        settings.overlap,
        region=(
            (scene.top, scene.top + scene.height),
            (scene.left, scene.left + scene.width),
        ),
    )
    channels = len(scene.bands) * max(1, settings.uncertainty)
    return Job(scene, values, beyond, tiles, scale, channels)


def choose_range(scene: Scene, text: str | None) -> tuple[ValueRange, bool]:
    """The values a model sees as 0 and 1, see `InferSettings.value_range`, and whether some of the
    scene lie outside.

    Raises:
        InputError: no valid pixel, or infinite values.
    """
    spread = spread_of(scene)
    found, wanted = spread.extremes, spread.bulk
    if found is None:
        raise InputError(f"{scene.path}: every pixel is nodata; there is nothing to enlarge")
    if text not in (None, "auto"):
        wanted = ValueRange.parse(str(text))
    elif text is None and scene.dtype == np.uint8:
        wanted = ValueRange(0, 255)
    elif text is None and scene.dtype.kind == "f" and found.low >= 0 and found.high <= 1:
        wanted = ValueRange(0, 1)
    return wanted, found.low < wanted.low or found.high > wanted.high


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
        job = prepare(path, settings, scale)
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
                    _write(enlarged, job, rows, settings, tags)
                    if spread:
                        _write_deviation(spread, job, rows, settings, tags)
                    if picture:
                        before_after(scene, enlarged, job.values, picture, scale)
            return {
                "output": str(target),
                "width": scene.width * scale,
                "height": scene.height * scale,
                "bands": list(scene.bands),
                "range": [job.values.low, job.values.high],
                "tiles": len(job.tiles),
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
    span = job.values.high - job.values.low

    def read(start: tuple[int, ...]) -> np.ndarray | None:
        values, valid = scene.read_around(start, settings.tile, MARGIN)
        if not valid.any():
            return None
        scaled = (values.astype(np.float32) - np.float32(job.values.low)) / np.float32(span)
        return fill_missing(scaled, valid)

    def predict(tiles: np.ndarray, starts: np.ndarray) -> np.ndarray:
        seen = np.clip(tiles, 0, 1) if job.beyond else tiles
        restored = [finite(restore_bands(r, seen, starts)) for r in restorers]
        if job.beyond:
            outside = enlarged_excess(tiles - seen, scale)
            restored = [np.clip(part, 0, 1) + outside for part in restored]
        return np.concatenate(restored, axis=1)

    def write(row: int, block: np.ndarray) -> None:
        samples = block.reshape(len(restorers), bands, *block.shape[1:])
        if not job.beyond:
            samples = np.clip(samples, 0, 1)
        samples = samples * np.float32(span)
        first = scene.top + row // scale
        here = (first, first + block.shape[1] // scale)
        columns = (scene.left, scene.left + scene.width)
        valid = scene.valid(scene.read(here, columns), here, columns)
        if not valid.any():
            rows.add(block.shape[1])
            return
        valid = valid.repeat(scale, axis=1).repeat(scale, axis=2)
        values = samples[0] + np.float32(job.values.low)
        arrays = {"values": to_sample_type(values, scene.dtype, output_nodata(scene), valid)}
        if len(restorers) > 1:
            spread = samples.std(axis=0, ddof=1)
            spread[~valid] = np.nan
            arrays["deviation"] = spread
        rows.add(block.shape[1], **arrays)

    stream(
        read,
        predict,
        write,
        job.tiles,
        channels=job.channels,
        scale=scale,
        batch=settings.batch or restorers[0].batch,
        blend="hann",
        from_row=rows.done,
        progress=progress,
    )


def output_nodata(scene: Scene) -> float | None:
    """The nodata value of the output: the scene's, or NaN for float bands that have none."""
    if scene.nodata is None and scene.dtype.kind == "f":
        return float("nan")
    return scene.nodata


def _write(
    target: Path,
    job: Job,
    rows: RowStore,
    settings: InferSettings,
    tags: dict[str, str],
) -> None:
    scene, nodata = job.scene, output_nodata(job.scene)

    def nothing(count: int) -> np.ndarray:
        shape = (len(scene.bands), count, scene.width * job.scale)
        return np.full(shape, nodata or 0, scene.dtype)

    write_geotiff(
        target,
        rows.read("values", BLOCK, nothing),
        scene,
        job.scale,
        dtype=scene.dtype,
        nodata=nodata,
        tags=tags,
        descriptions=[scene.dataset.descriptions[band - 1] for band in scene.bands],
        cog=settings.cog,
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
    }
    own: dict[str, str] = job.scene.dataset.tags()
    return own | provenance_tags(path, provenance)


def identity(settings: InferSettings) -> dict[str, Any]:
    """What results must agree on to be of one run: settings, weights, version."""
    kept = asdict(settings)
    del kept["batch"], kept["cog"], kept["allow_remote"]
    path = model_path(settings.model)
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path else ""
    return kept | {"weights": digest, "version": __version__}
