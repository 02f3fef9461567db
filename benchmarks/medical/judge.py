# SPDX-License-Identifier: Apache-2.0
"""Choose among models, their ensemble and post-processing, on phantoms of the other generator.

    med-seg phantom -o judge --generator growth --count 24 --val 24 --spacing 2 --seed 41
    python benchmarks/medical/judge.py judge/cases.csv reversible_unet_phantom run/model.safetensors

Prints the mean Dice of WT, TC and ET over the cases, and of the three means, for every model given,
for the mean of every 3D with every 2D one, and for every post-processing. A case without a region,
where none is found either, does not count for it. `--confusion` also prints what became of each
part, in ml over all cases, `--by-kind` the Dice of cases that enhance and of those that do not,
both with the first threshold and without post-processing.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from fieldfare.common import console
from fieldfare.common.progress import Progress
from fieldfare.common.runtime import set_threads
from fieldfare.medical.data.preparation import nest, slabs, to_input_grid
from fieldfare.medical.data.regions import REGIONS, to_labels, to_regions
from fieldfare.medical.data.table import LabelledCase, read_table
from fieldfare.medical.evaluation.metrics import dice
from fieldfare.medical.inference import run as inference
from fieldfare.medical.inference.postprocessing import keep_certain, mend, threshold_of
from fieldfare.medical.inference.predict import Predictor, load_predictor
from fieldfare.medical.volumes.images import read_labels
from fieldfare.medical.volumes.resampling import resample_axes

STEPS = ((), ("fill-holes",), ("hysteresis",), ("hysteresis", "fill-holes"))
SCHEME = "brats2023"
PARTS = ("none", "oedema", "core", "enhancing")
"""By how many of the regions hold a voxel."""


def pairs_of(predictors: dict[str, Predictor]) -> list[tuple[str, str]]:
    """Of a 3D and a 2D model."""
    return [
        (one, two)
        for one, two in itertools.permutations(predictors, 2)
        if predictors[one].ndim == 3 and predictors[two].ndim == 2
    ]


def predictions(case: LabelledCase, predictors: dict[str, Predictor]):
    """Every model's, and every pair's, job and probabilities; a pair's as `predict_together`."""
    settings = inference.InferSettings()
    single = {}
    for name, predictor in predictors.items():
        job = inference.open_case(case.images, settings, predictor)
        plan = inference.plan(job, settings, predictor)
        single[name] = job, inference.predict(job.prepared, predictor, plan).astype(np.float32)
    yield from ((name, *found) for name, found in single.items())
    for one, two in pairs_of(predictors):
        job, found = single[one]
        mean = (found + resample_axes(single[two][1], found.shape[1:])) / 2
        nest(mean)
        yield f"{one}+{two}", job, mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--tta", default="none")
    parser.add_argument("--thresholds", default="0.5", help="With commas.")
    parser.add_argument("--confusion", action="store_true")
    parser.add_argument("--by-kind", action="store_true")
    options = parser.parse_args()
    set_threads()
    thresholds = [float(part) for part in options.thresholds.split(",")]
    predictors = {
        name: load_predictor(name, device="cpu", tta=options.tta)[0] for name in options.models
    }
    cases = [case for case in read_table(options.table) if case.split == "val"]
    scores: dict[tuple[str, ...], list[list[float]]] = {}
    mixed: dict[str, np.ndarray] = {}
    enhances: list[bool] = []
    with Progress("judge", len(cases), unit="case") as bar:
        for number, case in enumerate(cases, 1):
            given = read_labels(case.labels)
            truth = to_regions(given.data, SCHEME)
            enhances.append(bool(truth[2].any()))
            voxel = abs(np.linalg.det(given.affine[:3, :3])) / 1000
            for name, job, found in predictions(case, predictors):
                for steps, threshold in itertools.product(STEPS, thresholds):
                    ours = to_regions(finished(job, found.copy(), steps, threshold), SCHEME)
                    row = [dice(a, b) for a, b in zip(ours, truth, strict=True)]
                    if not steps and threshold == thresholds[0]:
                        mixed[name] = mixed.get(name, 0) + voxel * confusion(truth, ours)
                    key = (name, f"{threshold:g}", ",".join(steps) or "none")
                    scores.setdefault(key, []).append(row)
            bar.update(number)
    rows = []
    for (name, threshold, steps), values in scores.items():
        row = {"model": name, "threshold": threshold, "postprocess": steps}
        rows.append(row | means_of(values))
    print(console.table(rows))
    if options.by_kind:
        kinds = {"enhancing": np.array(enhances), "not enhancing": ~np.array(enhances)}
        print(
            console.table(
                [
                    {"model": name, "cases": f"{of.sum()} {kind}"}
                    | means_of(np.array(scores[name, f"{thresholds[0]:g}", "none"])[of])
                    for name in mixed
                    for kind, of in kinds.items()
                ]
            )
        )
    if options.confusion:
        for name, table in mixed.items():
            named = [
                {"model": name, "is": part, **dict(zip(PARTS, row.round(1).tolist(), strict=True))}
                for part, row in zip(PARTS, table, strict=True)
            ]
            print(console.table(named))


def means_of(values: ArrayLike) -> dict[str, float]:
    """Of Dice (cases, regions), by region, and their mean; without what does not count."""
    means = np.nanmean(np.array(values), axis=0)
    named = {region: round(float(mean), 4) for region, mean in zip(REGIONS, means, strict=True)}
    return named | {"mean": round(float(np.nanmean(means)), 4)}


def confusion(truth: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """Voxels (4, 4) that are one of PARTS and are called one; of regions (3, X, Y, Z) that nest."""
    pairs = len(PARTS) * np.asarray(truth).sum(axis=0) + np.asarray(ours).sum(axis=0)
    return np.bincount(pairs.ravel(), minlength=len(PARTS) ** 2).reshape(len(PARTS), -1)


def finished(
    job: inference.Job, found: np.ndarray, steps: tuple[str, ...], threshold: float
) -> np.ndarray:
    """Labels on the input grid, as `inference.segment` makes them."""
    keep_certain(found, steps, threshold)
    labels = np.zeros(job.prepared.mask.shape, np.uint8)
    for rows, part in slabs(job.prepared, found):
        labels[rows] = to_labels(part >= threshold_of(steps, threshold), SCHEME)
    return to_input_grid(job.prepared, mend(labels, steps, SCHEME, 1.0))


if __name__ == "__main__":
    main()
