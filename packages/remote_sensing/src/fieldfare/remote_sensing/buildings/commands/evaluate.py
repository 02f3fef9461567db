# SPDX-License-Identifier: Apache-2.0
"""rs-buildings eval."""

import dataclasses
import itertools
import tempfile
from pathlib import Path
from typing import Any

import geopandas as gpd
import rasterio
from rasterio.enums import Resampling
from rasterio.shutil import copy as copy_raster
from rasterio.vrt import WarpedVRT

from fieldfare.common import console
from fieldfare.common.errors import InputError
from fieldfare.common.progress import Progress
from fieldfare.common.runtime import set_threads

from ..data.labels import read_labels, read_polygons
from ..data.scenes import placed
from ..evaluation import compare as evaluation
from ..evaluation import footprints as footprint_evaluation
from ..evaluation.reports import Evaluation, table, write_reports
from ..inference import run as inference
from ..inference.footprints import FootprintSettings, extract
from ..inference.predict import Predictor
from .infer import settings_of
from .models import depth_costs

MIN_AREA_PIXELS = 20.0
"""Smaller buildings do not count in SpaceNet's tables, which are in pixels."""

SHOWN = (
    *("scene", "model", "depth", "gmacs", "set", "building_iou", "mean_iou", "accuracy"),
    *("pixel_f1", "relaxed_precision", "relaxed_recall", "break_even", "relaxed_break_even"),
    *("boundary_iou", "object_f1", "ap50", "ap75", "polis", "count_error"),
)


def evaluate(truth: Path, options: dict[str, Any]) -> None:
    """Print the table; write the reports where asked."""
    set_threads()
    if bool(options["scene"]) == bool(options["prediction"]):
        raise InputError("give either --scene, to run models on, or --prediction, to compare")
    if not truth.exists():
        raise InputError(f"{truth}: no such file")
    costs: dict[tuple[str, int | None], float] = {}
    if options["prediction"]:
        evaluations = compare(options["prediction"], truth, options)
    else:
        evaluations = run_models(options["scene"], truth, options, costs)
    rows = table(evaluations)
    for row in rows:
        row["gmacs"] = costs.get((row["model"], row["depth"]))
    used = [name for name in SHOWN if any(row.get(name) not in (None, "") for row in rows)]
    text = console.table([{name: row.get(name) for name in used} for row in rows])
    if options["output"]:
        made = write_reports(options["output"], evaluations)
        text += "".join(f"\n{path}" for path in made)
    console.emit({"rows": rows}, as_json=options["as_json"], text=text)


def compare(prediction: Path, truth: Path, options: dict[str, Any]) -> list[Evaluation]:
    """Measure finished predictions: tables of SpaceNet, polygons, masks or folders of masks."""
    if not prediction.exists():
        raise InputError(f"{prediction}: no such file")
    kinds = {_kind(prediction), _kind(truth)}
    if len(kinds) > 1:
        raise InputError(
            f"{prediction} and {truth}: are of two kinds; compare polygons with polygons, rasters "
            "with rasters, tables with tables"
        )
    least = options["min_area"]
    if kinds == {"table"}:
        least = MIN_AREA_PIXELS if least is None else least
        return footprint_evaluation.compare_spacenet(prediction, truth, min_area=least)
    if kinds == {"raster"}:
        return evaluation.compare_masks(prediction, truth, threshold=options["threshold"])
    frames = []
    for path in (prediction, truth):
        frame, messages = read_polygons(path, keep="confidence")
        for text in messages:
            console.say(text, quiet=options["quiet"])
        frames.append(frame)
    least = footprint_evaluation.MIN_AREA if least is None else least
    return [
        footprint_evaluation.compare_footprints(
            {"footprints": frames[0]},
            frames[1],
            min_area=least,
            gsd=options["gsd"] or 1.0,
            scene=prediction.stem,
        )
    ]


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    if path.is_dir() or suffix in (".tif", ".tiff", ".png"):
        return "raster"
    return "table" if suffix == ".csv" else "polygons"


def run_models(
    scene: Path,
    truth: Path,
    options: dict[str, Any],
    costs: dict[tuple[str, int | None], float],
) -> list[Evaluation]:
    """Run models and depths on a scene and measure pixels, raw and regularised outlines."""
    labels = labels_on(truth, scene, quiet=options["quiet"])
    least = options["min_area"]
    footprints = FootprintSettings(threshold=options["threshold"])
    if least is not None:
        footprints = dataclasses.replace(footprints, min_area=least)
    evaluations = []
    for name, depth in itertools.product(options["model"], options["depth"] or (None,)):
        settings = settings_of(
            options, model=name, depth=depth, footprints=footprints, window=options["window"]
        )
        predictor = settings.predictor()
        stem, whole = Path(name).stem, predictor.depth
        rows = depth_costs(predictor.config)
        costs[stem, whole] = next(r["gmacs"] for r in rows if r["depth"] == f"L{whole}")
        found = evaluate_scene(
            scene, labels, settings, predictor, model=stem, depth=whole, quiet=options["quiet"]
        )
        evaluations.append(found)
    return evaluations


def labels_on(truth: Path, scene: Path, *, quiet: bool) -> gpd.GeoDataFrame:
    """True buildings in a scene's CRS, from polygons in any CRS or from a mask."""
    labels = read_labels(truth, scene)
    for text in labels.messages:
        console.say(text, quiet=quiet)
    with rasterio.open(scene) as dataset:
        transform, crs = dataset.transform, dataset.crs
    return gpd.GeoDataFrame(geometry=placed(labels.polygons, transform), crs=crs)


def evaluate_scene(
    scene: Path,
    labels: gpd.GeoDataFrame,
    settings: inference.InferSettings,
    predictor: Predictor,
    *,
    model: str,
    depth: int | None,
    quiet: bool,
) -> Evaluation:
    """Measure one model on one scene, on the scene's own pixel grid."""
    with tempfile.TemporaryDirectory() as folder:
        probability = Path(folder) / "probability.tif"
        raw = dataclasses.replace(settings.footprints, regularise=False)
        bars: list[Progress] = []

        def started(job: inference.Job) -> None:
            title = f"{model} L{depth}" if depth else model
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
        gsd = settings.gsd or predictor.config.gsd
        frames = {
            "raw": gpd.read_parquet(Path(folder) / "raw.parquet"),
            "regularised": extract(probability, settings.footprints, gsd=gsd),
        }
        if result["resampled"]:
            probability = _on_grid_of(scene, probability)
        return evaluation.evaluate_scene(
            probability,
            frames,
            labels,
            image=scene,
            threshold=settings.footprints.threshold,
            min_area=settings.footprints.min_area,
            gsd=gsd,
            scene=scene.stem,
            model=model,
            depth=depth,
        )


def _on_grid_of(scene: Path, probability: Path) -> Path:
    """Probabilities brought back to a scene's own pixels, so that scores are at its resolution."""
    target = probability.with_name("native.tif")
    with rasterio.open(scene) as own, rasterio.open(probability) as found:
        corner = ~own.transform * (found.transform * (0, 0))
        far = ~own.transform * (found.transform * (found.width, found.height))
        left, top = (round(value) for value in corner)
        right, bottom = (round(value) for value in far)
        crs = own.crs or "EPSG:3857"  # both lie in one plane; which one does not matter here
        with WarpedVRT(
            found,
            src_crs=crs,
            crs=crs,
            transform=own.transform * rasterio.Affine.translation(left, top),
            width=right - left,
            height=bottom - top,
            resampling=Resampling.bilinear,
        ) as resampled:
            copy_raster(resampled, target, driver="GTiff", compress="deflate")
    return target
