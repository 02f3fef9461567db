# SPDX-License-Identifier: Apache-2.0
"""One raster made ready: what the result depends on, the range of values, the plan of tiles."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.windows import Window

from fieldfare.common.errors import InputError
from fieldfare.common.windows import Plan, band_bytes, plan

from ... import __version__
from ...rasters.geotiff import BLOCK
from ...rasters.opening import GDAL_CACHE_MB
from ...rasters.ranges import choose_range
from ...rasters.reading import Scene, ValueRange
from .consistency import CONTEXT, ROUND_CONTEXT, ROUNDS
from .familiarity import Assessment, Familiarity
from .restore import BICUBIC, DiffusionRestorer, Restorer, load_restorer, model_path


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
        consistent: the result reduced again is the input, see `consistency.project`. When None:
            not for the bicubic baseline, nor where the raster looks sharpened, noisy or compressed,
            since that would be kept, too.
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
    consistent: bool | None = None
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

    def projects(self, assessment: Assessment) -> bool:
        """What `consistent` comes to for a raster."""
        wanted = self.model != BICUBIC and not assessment.processed
        return wanted if self.consistent is None else self.consistent

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
        tiles: over the scene and what its corrections look at around it.
        consistent: whether results are corrected.
        assessment: whether the scene is like what the model knows.
    """

    scene: Scene
    values: ValueRange
    beyond: bool
    tiles: Plan
    scale: int
    channels: int
    consistent: bool
    assessment: Assessment

    @property
    def softening(self) -> float:
        """dB of sharpening that are undone first; none where the result is held to the input."""
        return 0.0 if self.consistent else self.assessment.sharpening

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest value of a corrected sample, as the model sees it.

        Those of whole numbers are their type's; floats within the preset 0 to 1 stay there.
        """
        if self.scene.dtype.kind != "f":
            edges, low = np.iinfo(self.scene.dtype), self.values.low
            span = self.values.high - low
            return (edges.min - low) / span, (edges.max - low) / span
        free = self.beyond or self.values != ValueRange(0, 1)
        return (-np.inf, np.inf) if free else (0.0, 1.0)

    @property
    def tolerance(self) -> float:
        """Error of the reduced result that is left, as the model sees it: less than rounding."""
        span = self.values.high - self.values.low
        return 1e-6 if self.scene.dtype.kind == "f" else 0.02 / span

    @property
    def memory(self) -> int:
        """Estimate in bytes of what inference holds besides the model and one batch."""
        width = self.scene.width * self.scale
        band = band_bytes(self.tiles, self.channels, self.scale)
        rows = 4 * self.channels * width * BLOCK
        if self.consistent:
            lines = (4 + 2 * ROUNDS) * ROUND_CONTEXT + 4 * self.tiles.tile[0]
            rows += 5 * self.channels * width * lines * self.scale
        return 3 * band + rows + GDAL_CACHE_MB * 2**20

    @property
    def row_bytes(self) -> int:
        """What all finished rows take on disk where every row holds data."""
        pixels: int = self.scene.width * self.scene.height * self.scale**2
        spread = 4 if self.channels > len(self.scene.bands) else 0
        return pixels * len(self.scene.bands) * (int(self.scene.dtype.itemsize) + spread)


def prepare(path: Path, settings: InferSettings, restorer: Restorer) -> Job:
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
        values, beyond = choose_range(scene, settings.value_range)
        familiarity = Familiarity.of(model_path(settings.model), restorer.channels)
        assessment = familiarity.assess(scene, values)
    except BaseException:
        scene.dataset.close()
        raise
    sides = (scene.dataset.height, scene.dataset.width)
    consistent = settings.projects(assessment)
    context = CONTEXT if consistent else 0
    region = [
        (max(0, first - context), min(side, first + count + context))
        for first, count, side in zip(
            (scene.top, scene.left), (scene.height, scene.width), sides, strict=True
        )
    ]
    tiles = plan(sides, settings.tile, settings.overlap, region=region)
    channels = len(scene.bands) * max(1, settings.uncertainty)
    return Job(
        scene=scene,
        values=values,
        beyond=beyond,
        tiles=tiles,
        scale=restorer.scale,
        channels=channels,
        consistent=consistent,
        assessment=assessment,
    )


def identity(settings: InferSettings) -> dict[str, Any]:
    """What results must agree on to be of one run: settings, weights, version."""
    kept = asdict(settings)
    del kept["batch"], kept["cog"], kept["allow_remote"]
    path = model_path(settings.model)
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path else ""
    return kept | {"weights": digest, "version": __version__}
