# SPDX-License-Identifier: Apache-2.0
"""From a scene to footprints: read, prepare, predict, assemble, outline, write."""

import hashlib
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fieldfare.common.errors import InputError
from fieldfare.common.trust.knowledge import Judgement
from fieldfare.common.weights import locate
from fieldfare.common.windows import Plan, band_bytes, plan, stream

from ... import __version__
from ...rasters.geotiff import BLOCK, provenance_tags, write_geotiff
from ...rasters.opening import GDAL_CACHE_MB, environment, files_of
from ...rasters.reading import Scene, ValueRange, fill_missing
from ...rasters.rows import RowStore, kept_rows
from ...rasters.writing import check_disk, together
from ...scenes.ground import metres_per_unit
from ...scenes.preview import draw_outlines
from ...scenes.ready import make_ready
from ..networks.encoders import STRIDES
from ..networks.models import TASK
from .doubts import Impression, look_over
from .footprints import FULL, MISSING, FootprintSettings, extract
from .predict import Predictor, chosen_for, load_predictor
from .trust import Familiarity
from .writing import write_footprints

if TYPE_CHECKING:
    import geopandas as gpd


@dataclass(frozen=True)
class InferSettings:
    """What the result depends on, besides the scene itself.

    Attributes:
        model: packaged name or path.
        depth: of U-Net++, 1 to 4; the full one when None.
        footprints: how outlines are drawn.
        bands: 1-based; the first ones besides alpha when None.
        value_range: `LOW:HIGH`; chosen by sample type when None, see `scenes.ground.value_range`.
        window: (row, column, height, width) of the scene, in its own pixels.
        gsd: metres per pixel of a scene without CRS; that of the model when None.
        pixel_size: metres per pixel at which the model looks; its own when None.
        tile, overlap: in pixels of the model.
        origin: where the tile grid starts, in pixels, see `shift`.
        batch: tiles predicted together; chosen by device when None.
        allow_remote: the scene may lie on the network.
    """

    model: str
    depth: int | None = None
    footprints: FootprintSettings = field(default_factory=FootprintSettings)
    bands: tuple[int, ...] | None = None
    value_range: str | None = None
    window: tuple[int, int, int, int] | None = None
    gsd: float | None = None
    pixel_size: float | None = None
    tile: int = 512
    overlap: int = 128
    origin: tuple[int, int] = (0, 0)
    batch: int | None = None
    device: str = "auto"
    precision: str = "auto"
    allow_remote: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.tile:
            raise InputError(f"--overlap {self.overlap}: must be from 0 to {self.tile - 1}")
        if self.gsd is not None and not 0 < self.gsd < math.inf:
            raise InputError(f"--gsd {self.gsd}: must be above 0, metres per pixel")
        if self.pixel_size is not None and not 0 < self.pixel_size < math.inf:
            raise InputError(f"--pixel-size {self.pixel_size}: must be above 0, metres per pixel")
        if not 0 < self.footprints.threshold < 1:
            raise InputError(f"--threshold {self.footprints.threshold}: must lie between 0 and 1")

    @property
    def shift(self) -> tuple[int, int]:
        """The origin, rounded down to the network's coarsest stride.

        What a network gives for a pixel depends on where the pixel lies within that stride: with
        all tiles at its multiples it is the same in every grid.
        """
        row, column = (start - start % STRIDES[-1] for start in self.origin)
        return row, column

    def predictor(self) -> Predictor:
        """The model, loaded."""
        found = load_predictor(
            self.model, depth=self.depth, device=self.device, precision=self.precision
        )
        if self.pixel_size is not None:
            found.config = replace(found.config, gsd=self.pixel_size)
        return found


@dataclass(frozen=True)
class Job:
    """One scene made ready.

    Attributes:
        scene: at the model's pixel size.
        gsd: the scene's own metres per pixel (x, y), None where unknown.
        resampled: whether that differs from the model's.
        expert: pixel size in metres of the expert that it gets; None of a model without experts.
    """

    scene: Scene
    gsd: tuple[float, float] | None
    resampled: bool
    values: ValueRange
    tiles: Plan
    outputs: int
    expert: float | None = None

    @property
    def memory(self) -> int:
        """Estimate in bytes of what inference holds besides the model and one batch."""
        return 3 * band_bytes(self.tiles, self.outputs) + GDAL_CACHE_MB * 2**20

    @property
    def row_bytes(self) -> int:
        """What all finished rows take on disk where every row holds data."""
        return self.outputs * self.scene.width * self.scene.height


@dataclass(frozen=True)
class Targets:
    """Where results go; None is not written.

    Attributes:
        store: the output that the hidden folder of finished rows belongs to.
    """

    footprints: Path
    mask: Path | None = None
    probability: Path | None = None
    preview: Path | None = None
    store: Path | None = None


def prepare(path: Path, settings: InferSettings, predictor: Predictor) -> Job:
    """Open and check a scene.

    Raises:
        InputError: whatever is wrong with the scene or the settings.
    """
    config = predictor.config
    ready = make_ready(
        path,
        gsd=config.gsd,
        in_channels=config.in_channels,
        bands=settings.bands,
        assumed=settings.gsd,
        window=settings.window,
        values=settings.value_range,
        objects="houses",
    )
    tiles, (_, expert) = _tiles(ready.scene, settings), chosen_for(predictor, ready.gsd)
    outputs = len(config.outputs)
    return Job(ready.scene, ready.gsd, ready.resampled, ready.values, tiles, outputs, expert=expert)


def _tiles(scene: Scene, settings: InferSettings) -> Plan:
    shift = settings.shift
    return plan(
        (scene.dataset.height + shift[0], scene.dataset.width + shift[1]),
        settings.tile,
        settings.overlap,
        region=(
            (scene.top + shift[0], scene.top + scene.height + shift[0]),
            (scene.left + shift[1], scene.left + scene.width + shift[1]),
        ),
    )


def infer(
    path: Path,
    targets: Targets,
    settings: InferSettings,
    predictor: Predictor,
    *,
    resume: bool = True,
    started: Callable[[Job], None] = lambda job: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    outlined: Callable[[int, int], None] = lambda done, total: None,
    guard: bool = False,
    looked: Callable[[Impression], None] = lambda impression: None,
    judged: Callable[[Judgement | None], None] = lambda judgement: None,
) -> dict[str, Any]:
    """Find the buildings of one scene.

    Args:
        predictor: of `settings.predictor()`.
        resume: go on from finished rows of an interrupted run with the same settings.
        started: called with the job before the first tile.
        progress, outlined: (done, in all) of tiles, then of outlines.
        guard: whether slightly changed copies are asked about, too.
        looked: called before the first tile with what is odd about the scene.
        judged: called before anything is written with how the scene stands to what the model
            knows; None where the model does not say.

    Returns:
        What was found and done, for `--json`.
    """
    with environment(allow_remote=settings.allow_remote):
        job = prepare(path, settings, predictor)
        predictor, _ = chosen_for(predictor, job.gsd)
        with job.scene as scene:
            started(job)
            if scene.dense:
                check_disk(targets.footprints, job.row_bytes)
            impression = look_over(scene, job.values, predictor, guard=guard)
            looked(impression)
            store, run = targets.store or targets.footprints, identity(settings)
            with kept_rows(files_of(path), store, run, resume=resume, height=scene.height) as rows:
                judgement = _predict_rows(job, settings, predictor, rows, progress)
                judged(judgement)
                tags = _tags(path, job, settings, judgement, impression)
                frame = _outline(path, job, rows, targets, settings, predictor, tags, outlined)
            return {
                "output": str(targets.footprints),
                "buildings": len(frame),
                "area_m2": float(frame["area_m2"].sum()),
                "width": scene.width,
                "height": scene.height,
                "resampled": job.resampled,
                "expert": job.expert,
                "tiles": len(job.tiles),
                "metres_per_unit": metres_per_unit(scene, predictor.config.gsd),
                "trust": None if judgement is None else judgement.to_json(),
                **impression.to_json(),
            }


def _predict_rows(
    job: Job,
    settings: InferSettings,
    predictor: Predictor,
    rows: RowStore,
    progress: Callable[[int, int], None],
) -> Judgement | None:
    """Stream the tiles of a scene; finished rows of probabilities go to the store.

    Returns:
        How the scene stands to what the model knows, if the model says.
    """
    scene, shift = job.scene, settings.shift
    look = Familiarity(predictor.knowledge, predictor) if predictor.knowledge else None
    span = np.float32(job.values.high - job.values.low)

    def read(start: tuple[int, ...]) -> np.ndarray | None:
        here = (start[0] - shift[0], start[1] - shift[1])
        values, valid = scene.read_around(here, settings.tile, 0)
        if not valid.any():
            return None
        if look:
            look.hold(start, valid)
        scaled = (values.astype(np.float32) - np.float32(job.values.low)) / span
        return fill_missing(np.clip(scaled, 0, 1), valid)

    def write(row: int, block: np.ndarray) -> None:
        here = (scene.top + row, scene.top + row + block.shape[1])
        columns = (scene.left, scene.left + scene.width)
        valid = scene.valid(scene.read(here, columns), here, columns).any(axis=0)
        if not valid.any():
            rows.add(block.shape[1])
            return
        levels = np.rint(np.clip(block, 0, 1) * FULL).astype(np.uint8)
        levels[:, ~valid] = MISSING
        rows.add(block.shape[1], probability=levels, **({"trust": look.take()} if look else {}))

    stream(
        read,
        look or predictor,
        write,
        job.tiles,
        channels=job.outputs,
        batch=settings.batch or predictor.batch,
        blend="hann",
        from_row=rows.done,
        progress=progress,
    )
    if not look:
        return None
    last = look.take()
    # Of an interrupted run, too; everything in one piece.
    kept = rows.read("trust", 1 << 40, lambda count: last[:0])
    return look.judgement(np.concatenate([*kept, last]))


def _tags(
    path: Path,
    job: Job,
    settings: InferSettings,
    judgement: Judgement | None,
    impression: Impression,
) -> dict[str, str]:
    """Provenance of rasters."""
    found = _result_settings(settings)
    found |= {"model": Path(settings.model).stem, "range": str(job.values)}
    if job.expert is not None:
        found["expert"] = f"{job.expert:g} m"
    if judgement is not None:
        found["trust"] = judgement.sentence()
    if lines := impression.warnings():
        found["doubts"] = "; ".join(lines)
    return provenance_tags(path, found)


def _outline(
    path: Path,
    job: Job,
    rows: RowStore,
    targets: Targets,
    settings: InferSettings,
    predictor: Predictor,
    tags: dict[str, str],
    progress: Callable[[int, int], None],
) -> "gpd.GeoDataFrame":
    """Draw outlines on the probabilities and write what was asked for."""
    names = list(predictor.config.outputs)
    scene = job.scene

    def levels() -> Iterator[np.ndarray]:
        def nothing(count: int) -> np.ndarray:
            return np.full((len(names), count, scene.width), MISSING, np.uint8)

        return rows.read("probability", BLOCK, nothing)

    with tempfile.TemporaryDirectory(dir=rows.folder) as folder:
        probability = Path(folder) / "probability.tif"
        _write(probability, levels(), scene, tags, names, cog=False)
        unit = metres_per_unit(job.scene, predictor.config.gsd)
        frame = extract(probability, settings.footprints, gsd=unit, progress=progress)
    frame["model"] = Path(settings.model).stem
    wanted = (targets.footprints, targets.mask, targets.probability, targets.preview)
    with together(*wanted) as (footprints, mask, probability_target, picture):
        if probability_target:
            _write(probability_target, levels(), scene, tags, names, cog=True)
        if mask:
            least = settings.footprints.threshold * FULL
            masks = (_mask(block[:1], least) for block in levels())
            _write(mask, masks, scene, tags, ["building"], cog=True)
        if picture:
            draw_outlines(path, frame, picture, settings.value_range, noun="buildings")
        assert footprints is not None
        write_footprints(frame, footprints)
    return frame


def _mask(levels: np.ndarray, least: float) -> np.ndarray:
    return np.where(levels == MISSING, MISSING, levels >= least).astype(np.uint8)


def _write(
    target: Path,
    rows: Iterator[np.ndarray],
    scene: Scene,
    tags: dict[str, str],
    names: list[str],
    *,
    cog: bool,
) -> None:
    write_geotiff(
        target,
        rows,
        scene,
        1,
        dtype=np.dtype("uint8"),
        nodata=MISSING,
        tags=tags,
        descriptions=names,
        like_scene=False,
        cog=cog,
    )


def _result_settings(settings: InferSettings) -> dict[str, Any]:
    """Those that change the result."""
    kept = asdict(settings)
    del kept["batch"], kept["allow_remote"]
    return kept


def identity(settings: InferSettings) -> dict[str, Any]:
    """What the probabilities of one run must agree on: settings, weights, version."""
    kept = _result_settings(replace(settings, footprints=FootprintSettings()))
    digest = hashlib.sha256(locate(settings.model, TASK).read_bytes()).hexdigest()
    return kept | {"weights": digest, "version": __version__}
