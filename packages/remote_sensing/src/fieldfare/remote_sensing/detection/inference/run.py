# SPDX-License-Identifier: Apache-2.0
"""From a scene to detections: read, prepare, predict, thin out, write."""

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fieldfare.common.errors import InputError
from fieldfare.common.trust.knowledge import Judgement
from fieldfare.common.weights import locate

from ... import __version__
from ...rasters.opening import environment, files_of, open_raster
from ...rasters.reading import Scene, fill_missing
from ...rasters.rows import RowStore, kept_rows
from ...rasters.writing import together
from ...scenes.colours import colour_doubts
from ...scenes.preview import draw_outlines
from ...scenes.ready import Ready, make_ready
from ..networks.models import TASK
from .coco import to_coco, write_coco
from .frames import to_frame, to_map
from .predict import Detections, Predictor, load_predictor
from .suppression import suppress
from .tiling import Tile, Tiling
from .trust import Familiarity
from .writing import COCO, write_frame

FOUND, TRUST = "found", "trust"
"""Tables of a line's detections, and of how its tiles look, among the finished rows."""


@dataclass(frozen=True)
class InferSettings:
    """What the result depends on, besides the scene itself.

    Attributes:
        model: packaged name or path.
        threshold: least confidence; the model's own when None.
        nms: IoU above which the less confident of two boxes goes; the model's own when None.
        bands: 1-based; the first ones besides alpha when None.
        value_range: `LOW:HIGH`; chosen by sample type when None, see `scenes.ground.value_range`.
        window: (row, column, height, width) of the scene, in its own pixels.
        gsd: metres per pixel of a scene without CRS; that of the model when None.
        pixel_size: metres per pixel at which the model looks; its own when None.
        tile, overlap: in pixels of the model, see `Tiling`.
        points: middles are written instead of boxes.
        batch: tiles predicted together; chosen by device when None.
        allow_remote: the scene may lie on the network.
    """

    model: str
    threshold: float | None = None
    nms: float | None = None
    bands: tuple[int, ...] | None = None
    value_range: str | None = None
    window: tuple[int, int, int, int] | None = None
    gsd: float | None = None
    pixel_size: float | None = None
    tile: int = 576
    overlap: int = 64
    points: bool = False
    batch: int | None = None
    device: str = "auto"
    precision: str = "auto"
    allow_remote: bool = False

    def __post_init__(self) -> None:
        Tiling(self.tile, self.overlap, (0, 1), (0, 1), (1, 1))
        if self.gsd is not None and not 0 < self.gsd < math.inf:
            raise InputError(f"--gsd {self.gsd}: must be above 0, metres per pixel")
        if self.pixel_size is not None and not 0 < self.pixel_size < math.inf:
            raise InputError(f"--pixel-size {self.pixel_size}: must be above 0, metres per pixel")
        for name, value in (("--threshold", self.threshold), ("--nms", self.nms)):
            if value is not None and not 0 < value < 1:
                raise InputError(f"{name} {value}: must lie between 0 and 1")

    def predictor(self) -> Predictor:
        """The model, loaded."""
        found = load_predictor(self.model, device=self.device, precision=self.precision)
        if self.pixel_size is not None:
            found.config = replace(found.config, gsd=self.pixel_size)
        return found


@dataclass(frozen=True)
class Job:
    """One scene made ready, and the tiles over it."""

    ready: Ready
    tiles: Tiling

    @property
    def scene(self) -> Scene:
        """At the model's pixel size."""
        return self.ready.scene


@dataclass(frozen=True)
class Targets:
    """Where results go; None is not written.

    Attributes:
        store: the output that the hidden folder of finished lines belongs to.
    """

    detections: Path
    preview: Path | None = None
    store: Path | None = None


def prepare(path: Path, settings: InferSettings, predictor: Predictor) -> Job:
    """Open and check a scene; raises InputError for what is wrong with it or the settings."""
    config = predictor.config
    ready = make_ready(
        path,
        gsd=config.gsd,
        in_channels=config.in_channels,
        bands=settings.bands,
        assumed=settings.gsd,
        window=settings.window,
        values=settings.value_range,
        objects=" and ".join(config.classes[:2]),
    )
    scene = ready.scene
    rows = (scene.top, scene.top + scene.height)
    columns = (scene.left, scene.left + scene.width)
    size = (scene.dataset.height, scene.dataset.width)
    return Job(ready, Tiling(settings.tile, settings.overlap, rows, columns, size))


def infer(
    path: Path,
    targets: Targets,
    settings: InferSettings,
    predictor: Predictor,
    *,
    resume: bool = True,
    started: Callable[[Job], None] = lambda job: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    looked: Callable[[list[str]], None] = lambda doubts: None,
    judged: Callable[[Judgement | None], None] = lambda judgement: None,
) -> dict[str, Any]:
    """Find the objects of one scene and write them.

    Args:
        predictor: of `settings.predictor()`.
        resume: go on from finished lines of tiles of an interrupted run with the same settings.
        started: called with the job before the first tile.
        progress: (done, in all) of tiles.
        looked: called before the first tile with what is odd about the colours; may raise.
        judged: called before anything is written with how the scene stands to what the model knows,
            if the model says; may raise.

    Returns:
        What was found and done, for `--json`.
    """
    with environment(allow_remote=settings.allow_remote):
        job = prepare(path, settings, predictor)
        with job.scene as scene:
            started(job)
            known = predictor.colours
            doubts = colour_doubts(scene, job.ready.values, known) if known else []
            looked(doubts)
            store, run = targets.store or targets.detections, identity(settings)
            with kept_rows(files_of(path), store, run, resume=resume, height=scene.height) as rows:
                look = Familiarity(predictor.knowledge, predictor) if predictor.knowledge else None
                found = detect(job, settings, predictor, rows, progress, look)
                judgement = _judgement(look, rows) if look else None
                judged(judgement)
                _write(path, found, job, targets, settings, predictor)
            names = predictor.config.classes
            counts = np.bincount(found.classes, minlength=len(names))
            return {
                "output": str(targets.detections),
                "objects": len(found),
                "classes": dict(zip(names, counts.tolist(), strict=True)),
                "width": scene.width,
                "height": scene.height,
                "resampled": job.ready.resampled,
                "tiles": len(job.tiles),
                "trust": None if judgement is None else judgement.to_json(),
                "doubts": doubts,
            }


def _judgement(look: Familiarity, rows: RowStore) -> Judgement | None:
    """On the lines of an interrupted run, too."""
    nothing = look.take()
    kept = rows.read(TRUST, 1 << 40, lambda count: nothing)
    return look.judgement(np.concatenate([nothing, *kept]))


def detect(
    job: Job,
    settings: InferSettings,
    predictor: Predictor,
    rows: RowStore | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    look: Familiarity | None = None,
) -> Detections:
    """The objects of a scene, most confident first, in its pixels.

    A tile answers for what has its middle in its own middle part; then the boxes of all tiles are
    thinned out together, so nothing is found twice where tiles meet.

    Args:
        rows: keeps finished lines of tiles, and has those of an earlier run.
        look: gathers what the tiles look like; needs `rows`.
    """
    config, scene = predictor.config, job.scene
    least = config.threshold if settings.threshold is None else settings.threshold
    batch = settings.batch or predictor.batch
    tables, done = [np.empty((0, 6))], 0
    finished = rows.done if rows else 0
    for line in job.tiles.lines():
        first, last = (row - scene.top for row in line[0].rows)
        if last > finished:
            table = np.concatenate(
                [each.to_table() for each in _line(job, line, predictor, least, batch, look)]
            )
            if rows is not None:
                seen = {TRUST: look.take()} if look else {}
                holds = len(table) or any(map(len, seen.values()))
                rows.add(last - first, **({FOUND: table, **seen} if holds else {}))
            else:
                tables.append(table)
        done += len(line)
        progress(done, len(job.tiles))
    if rows is not None:
        tables += list(rows.read(FOUND, 1 << 40, lambda count: np.empty((0, 6))))
    found = Detections.from_table(np.concatenate(tables))
    return suppress(found, config.nms if settings.nms is None else settings.nms)


def _line(
    job: Job,
    line: list[Tile],
    predictor: Predictor,
    least: float,
    batch: int,
    look: Familiarity | None,
) -> Iterator[Detections]:
    """What each tile of a line answers for."""
    waiting: list[tuple[Tile, np.ndarray, np.ndarray]] = []
    yield Detections.from_table(np.empty((0, 6)))
    for number, tile in enumerate(line, start=1):
        rows, columns = tile.shape
        square = job.scene.read_around(tile.start, max(tile.shape), 0)
        values, valid = (each[:, :rows, :columns] for each in square)
        if valid.any():
            if look:
                look.hold(tile.start, valid)
            known = np.asarray(valid.any(axis=0))
            waiting.append((tile, _scaled(job, values, valid), known))
        another = number < len(line) and line[number].shape == tile.shape
        if waiting and (len(waiting) == batch or not another):
            tiles = np.stack([pixels for _, pixels, _ in waiting])
            starts = np.array([here.start for here, _, _ in waiting])
            found = look(tiles, least, starts) if look else predictor(tiles, least)
            for (here, _, there), each in zip(waiting, found, strict=True):
                yield _own(each, here, there)
            waiting = []


def _scaled(job: Job, values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Pixels from 0 to 1; missing ones take the values of their neighbours."""
    low, high = np.float32(job.ready.values.low), np.float32(job.ready.values.high)
    scaled = (values.astype(np.float32) - low) / (high - low)
    return fill_missing(np.clip(scaled, 0, 1), valid)


def _own(found: Detections, tile: Tile, known: np.ndarray) -> Detections:
    """Those whose middle lies in the tile's own part, on a known pixel; in the scene's pixels."""
    row, column = tile.start
    middle = np.floor(found.centres).astype(int)
    x, y = middle[:, 0] + column, middle[:, 1] + row
    mine = (y >= tile.rows[0]) & (y < tile.rows[1]) & (x >= tile.columns[0]) & (x < tile.columns[1])
    inside = middle.clip(0, np.array(known.shape[::-1]) - 1)
    mine &= known[inside[:, 1], inside[:, 0]]
    chosen = found.take(mine)
    moved = chosen.boxes + np.array([column, row, column, row], np.float64)
    return Detections(moved, chosen.scores, chosen.classes)


def _write(
    path: Path,
    found: Detections,
    job: Job,
    targets: Targets,
    settings: InferSettings,
    predictor: Predictor,
) -> None:
    """Write what was asked for, all or nothing."""
    scene, classes, model = job.scene, predictor.config.classes, Path(settings.model).stem
    with together(targets.detections, targets.preview) as (output, picture):
        if picture:
            boxes = to_frame(found, scene, classes, model=model, points=False)
            draw_outlines(path, boxes, picture, settings.value_range, noun="objects")
        assert output is not None
        if targets.detections.suffix.lower() in COCO:
            write_coco(_coco(path, found, scene, classes), output)
        else:
            frame = to_frame(found, scene, classes, model=model, points=settings.points)
            write_frame(frame, output, points=settings.points)


def _coco(path: Path, found: Detections, scene: Scene, classes: tuple[str, ...]) -> dict[str, Any]:
    """In pixels of the raster, which the scene may be resampled from."""
    with open_raster(path) as raster:
        size = (raster.height, raster.width)
    scale = np.array([size[1] / scene.dataset.width, size[0] / scene.dataset.height] * 2)
    own = Detections(found.boxes * scale, found.scores, found.classes)
    return to_coco(own, to_map(found, scene), path, size, classes)


def identity(settings: InferSettings) -> dict[str, Any]:
    """What the lines of one run must agree on: settings, weights, version."""
    kept = asdict(settings)
    for name in ("batch", "allow_remote", "points"):
        del kept[name]
    digest = hashlib.sha256(locate(settings.model, TASK).read_bytes()).hexdigest()
    return kept | {"weights": digest, "version": __version__}
