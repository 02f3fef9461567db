# SPDX-License-Identifier: Apache-2.0
"""rs-buildings eval."""

from pathlib import Path

from fieldfare.common import console
from fieldfare.common.errors import InputError

from ...rasters.opening import environment
from ...vectors.reading import read_polygons
from ..evaluation import compare as evaluation
from ..evaluation import footprints as footprint_evaluation
from ..evaluation.reports import Evaluation, table, write_reports
from ..options import EvalOptions

MIN_AREA_PIXELS = 20.0
"""Smaller buildings do not count in SpaceNet's tables, which are in pixels."""

SHOWN = (
    *("scene", "model", "depth", "gmacs", "set", "building_iou", "mean_iou", "accuracy"),
    *("pixel_f1", "relaxed_precision", "relaxed_recall", "break_even", "relaxed_break_even"),
    *("boundary_iou", "object_f1", "ap50", "ap75", "polis", "count_error"),
    *("label_shift_m", "label_bearing"),
)


@environment()
def evaluate(truth: Path, options: EvalOptions) -> None:
    """Print the table; write the reports where asked."""
    scene, prediction = options.scene, options.prediction
    if bool(scene) == bool(prediction):
        raise InputError("give either --scene, to run models on, or --prediction, to compare")
    if not truth.exists():
        raise InputError(f"{truth}: no such file")
    costs: dict[tuple[str, int | None], float] = {}
    evaluations: list[Evaluation] = []
    if prediction:
        evaluations = compare(prediction, truth, options)
    elif scene:
        from .evaluate_scene import run_models

        evaluations = run_models(scene, truth, options, costs)
    rows = table(evaluations)
    for row in rows:
        row["gmacs"] = costs.get((row["model"], row["depth"]))
    used = [name for name in SHOWN if any(row.get(name) not in (None, "") for row in rows)]
    text = console.table([{name: row.get(name) for name in used} for row in rows])
    if options.output:
        made = write_reports(options.output, evaluations)
        text += "".join(f"\n{path}" for path in made)
    console.emit({"rows": rows}, as_json=options.as_json, text=text)


def compare(prediction: Path, truth: Path, options: EvalOptions) -> list[Evaluation]:
    """Measure finished predictions: tables of SpaceNet, polygons, masks or folders of masks."""
    if not prediction.exists():
        raise InputError(f"{prediction}: no such file")
    kinds = {_kind(prediction), _kind(truth)}
    if len(kinds) > 1:
        raise InputError(
            f"{prediction} and {truth}: are of two kinds; compare polygons with polygons, rasters "
            "with rasters, tables with tables"
        )
    least = options.min_area
    if kinds == {"table"}:
        least = MIN_AREA_PIXELS if least is None else least
        return footprint_evaluation.compare_spacenet(prediction, truth, min_area=least)
    if kinds == {"raster"}:
        return evaluation.compare_masks(prediction, truth, threshold=options.threshold)
    frames = []
    for path in (prediction, truth):
        frame, messages = read_polygons(path, keep="confidence", layer=options.layer)
        for text in messages:
            console.say(text, quiet=options.quiet)
        frames.append(frame)
    least = footprint_evaluation.MIN_AREA if least is None else least
    return [
        footprint_evaluation.compare_footprints(
            {"footprints": frames[0]},
            frames[1],
            min_area=least,
            gsd=options.gsd or 1.0,
            scene=prediction.stem,
        )
    ]


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    if path.is_dir() or suffix in (".tif", ".tiff", ".png"):
        return "raster"
    return "table" if suffix == ".csv" else "polygons"
