# SPDX-License-Identifier: Apache-2.0
"""rs-buildings eval --scene: models run on a scene and measured there."""

import dataclasses
import itertools
import tempfile
from functools import partial
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import rasterio.features
from rasterio.enums import Resampling
from rasterio.shutil import copy as copy_raster
from rasterio.vrt import WarpedVRT

from fieldfare.common import console
from fieldfare.common.progress import Progress
from fieldfare.common.runtime import set_threads

from ...rasters.georeference import georeference_of
from ...rasters.opening import open_raster
from ...scenes.ground import placed
from ..data.labels import read_labels
from ..evaluation import compare as evaluation
from ..evaluation.moved_labels import moved_labels
from ..evaluation.reports import Evaluation
from ..inference import run as inference
from ..inference.footprints import MISSING, FootprintSettings, extract
from ..inference.predict import Predictor
from ..options import EvalOptions
from .infer import settings_of
from .models import depth_costs


def run_models(
    scene: Path,
    truth: Path,
    options: EvalOptions,
    costs: dict[tuple[str, int | None], float],
) -> list[Evaluation]:
    """Run models and depths on a scene and measure pixels, raw and regularised outlines."""
    set_threads()
    labels, unknown = labels_on(truth, scene, options)
    least = options.min_area
    footprints = FootprintSettings(threshold=options.threshold)
    if least is not None:
        footprints = dataclasses.replace(footprints, min_area=least)
    evaluations = []
    for name, depth in itertools.product(options.models, options.depths or (None,)):
        settings = settings_of(
            options, model=name, depth=depth, footprints=footprints, window=options.window
        )
        predictor = settings.predictor()
        stem, whole = Path(name).stem, predictor.depth
        rows = depth_costs(predictor.config)
        costs[stem, whole] = next(r["gmacs"] for r in rows if r["depth"] == f"L{whole}")
        found = evaluate_scene(
            scene,
            labels,
            settings,
            predictor,
            unknown=unknown,
            model=stem,
            depth=whole,
            quiet=options.quiet,
        )
        evaluations.append(found)
    return evaluations


def labels_on(
    truth: Path, scene: Path, options: EvalOptions
) -> tuple[gpd.GeoDataFrame, np.ndarray]:
    """True buildings in a scene's CRS, from labels of any kind; and where nothing is known."""
    labels = read_labels(truth, scene, options.layer)
    for text in labels.messages:
        console.say(text, quiet=options.quiet)
    with open_raster(scene) as dataset:
        place = georeference_of(dataset)
    polygons, unknown = (
        placed(geometries, place.transform) for geometries in (labels.polygons, labels.unknown)
    )
    return gpd.GeoDataFrame(geometry=polygons, crs=place.crs), unknown


def evaluate_scene(
    scene: Path,
    labels: gpd.GeoDataFrame,
    settings: inference.InferSettings,
    predictor: Predictor,
    *,
    unknown: np.ndarray,
    model: str,
    depth: int | None,
    quiet: bool,
) -> Evaluation:
    """Measure one model on one scene, on the scene's own pixel grid.

    Args:
        unknown: polygons in the scene's CRS that do not count.
    """
    with tempfile.TemporaryDirectory() as folder:
        probability = Path(folder) / "probability.tif"
        raw = dataclasses.replace(settings.footprints, regularise=False)
        bars: list[Progress] = []
        title = f"{model} L{depth}" if depth else model

        def started(job: inference.Job) -> None:
            bars.append(Progress(title, len(job.tiles), quiet=quiet))

        result = inference.infer(
            scene,
            inference.Targets(Path(folder) / "raw.parquet", probability=probability),
            dataclasses.replace(settings, footprints=raw),
            predictor,
            started=started,
            progress=lambda done, total: bars[0].update(done),
        )
        bars[0].__exit__(None, None, None)
        gsd = result["metres_per_unit"]
        frames = {
            "raw": gpd.read_parquet(Path(folder) / "raw.parquet"),
            "regularised": extract(probability, settings.footprints, gsd=gsd),
        }
        if result["resampled"]:
            probability = _on_grid_of(scene, probability)
        if len(unknown):
            probability = _without(unknown, probability)
        measured = partial(
            evaluation.evaluate_scene,
            probability,
            frames,
            image=scene,
            threshold=settings.footprints.threshold,
            min_area=settings.footprints.min_area,
            gsd=gsd or 1.0,
            scene=scene.stem,
            model=model,
            depth=depth,
        )
        found = measured(labels)
        aside = moved_labels(frames["raw"], labels, gsd=gsd)
        if aside is None:
            return found
        shift, moved = aside
        console.say(
            f"the labels lie {shift.distance_m:.1f} m from what {title} sees, bearing "
            f"{shift.direction:.0f} degrees (median of {shift.pairs} buildings): either may be "
            "wrong; rows 'labels moved' count with the labels moved there",
            quiet=quiet,
        )
        sets = {f"{name}, labels moved": scores for name, scores in measured(moved).sets.items()}
        about = {"label_shift_m": shift.distance_m, "label_bearing": shift.direction}
        return dataclasses.replace(found, sets=found.sets | sets, settings=found.settings | about)


def _without(unknown: np.ndarray, probability: Path) -> Path:
    """Probabilities with no data where nothing is known of the truth."""
    target = probability.with_name("known.tif")
    copy_raster(probability, target, driver="GTiff", compress="deflate", tiled=True)
    with rasterio.open(target, "r+") as sink:
        for _, window in sink.block_windows(1):
            grid = sink.window_transform(window)
            shape = (int(window.height), int(window.width))
            hidden = rasterio.features.rasterize(unknown, out_shape=shape, transform=grid)
            levels = sink.read(1, window=window)
            levels[hidden > 0] = MISSING
            sink.write(levels, 1, window=window)
    return target


def _on_grid_of(scene: Path, probability: Path) -> Path:
    """Probabilities brought back to a scene's own pixels, so that scores are at its resolution."""
    target = probability.with_name("native.tif")
    with open_raster(scene) as own, rasterio.open(probability) as found:
        place = georeference_of(own)
        corner = ~place.transform * (found.transform * (0, 0))
        far = ~place.transform * (found.transform * (found.width, found.height))
        left, top = (round(value) for value in corner)
        right, bottom = (round(value) for value in far)
        crs = place.crs or "EPSG:3857"  # both lie in one plane; which one does not matter here
        with WarpedVRT(
            found,
            src_crs=crs,
            crs=crs,
            transform=place.transform * rasterio.Affine.translation(left, top),
            width=right - left,
            height=bottom - top,
            resampling=Resampling.bilinear,
        ) as resampled:
            copy_raster(resampled, target, driver="GTiff", compress="deflate")
    return target
