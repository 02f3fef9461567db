# SPDX-License-Identifier: Apache-2.0
"""Measure every variant of the packaged tumour models and keep them for `infer --within`.

    med-seg phantom -o JUDGE --generator growth --count 24 --val 24 --spacing 2 --seed 41
    python benchmarks/medical/variants.py JUDGE --kept qualities.json

Quality is the mean Dice of WT, TC and ET over the phantoms, which are of the generator that models
are chosen by and not trained on. Cost is of one head, the mean of the phantoms: as many tiles as
`infer` lays over it. An ensemble costs what its members do. Processor time on one thread. The
network of slices keeps nothing of what it was trained on, so that nothing would warn of strange
cases: alone it is taken only by name. Qualities in the file `--kept` are not measured again.
"""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fieldfare.common.budget.collect import collect
from fieldfare.common.budget.variants import SUFFIX, Variant, Variants
from fieldfare.common.weights import locate
from fieldfare.medical import weights
from fieldfare.medical.data.cases import find_case
from fieldfare.medical.data.regions import to_regions
from fieldfare.medical.evaluation.metrics import dice
from fieldfare.medical.inference import run as inference
from fieldfare.medical.inference.predict import Predictor, load_predictor, split_names
from fieldfare.medical.inference.units import VOXELS
from fieldfare.medical.networks.models import TASK
from fieldfare.medical.options import DEFAULT_MODEL, ENSEMBLE, ENSEMBLE_STEPS
from fieldfare.medical.volumes.images import read_labels

Settings = dict[str, Any]

SCHEME = "brats2023"
SLICES = ENSEMBLE.split("+")[1]
BOTH = {"model": ENSEMBLE, "postprocess": ENSEMBLE_STEPS}
FLIPS = {"tta": "axial"}
WAYS: dict[str, Settings] = {
    "slices": {"model": SLICES, "overlap": None},
    "volume-0": {"model": DEFAULT_MODEL, "overlap": 0},
    "volume-8": {"model": DEFAULT_MODEL, "overlap": 8},
    "volume-16": {"model": DEFAULT_MODEL, "overlap": 16},
    "volume": {"model": DEFAULT_MODEL, "overlap": None},
    "both-0": {**BOTH, "overlap": 0},
    "both": {**BOTH, "overlap": None},
    "slices-flips": {"model": SLICES, "overlap": None, **FLIPS},
}
MEMBERS = {
    "both": ("volume", "slices"),
    "both-0": ("volume-0", "slices"),
}
"""Of an ensemble the variants that are its members."""

FLOATS = ("slices", "volume-0")
"""What is measured in float32, too."""


def plans() -> dict[str, Settings]:
    """Settings by name."""
    return {
        f"{name}-{precision}": {"tta": "none", **way, "precision": precision}
        for name, way in WAYS.items()
        for precision in (("fp32", "bf16") if name in FLOATS else ("bf16",))
    }


class Judge:
    """Phantoms, read and prepared once for all networks that see alike."""

    def __init__(self, cases: list[Path]) -> None:
        self._cases = cases
        self._jobs: dict[object, list[inference.Job]] = {}
        labels = (read_labels(next(folder.glob("*seg.nii.gz"))).data for folder in cases)
        self._truth = [to_regions(values, SCHEME) for values in labels]

    def _opened(
        self, settings: Settings
    ) -> tuple[Predictor, inference.InferSettings, list[inference.Job]]:
        predictor, _ = load_predictor(
            settings["model"], precision=settings["precision"], tta=settings["tta"]
        )
        how = inference.InferSettings(
            labels=SCHEME,
            overlap=settings["overlap"],
            precision=settings["precision"],
            postprocess=settings.get("postprocess", "none"),
        )
        members = (predictor, *predictor.others)
        key = tuple((one.config.spacing, one.ndim) for one in members)
        if key not in self._jobs:
            self._jobs[key] = [
                inference.open_case(find_case(folder), how, predictor) for folder in self._cases
            ]
        return predictor, how, self._jobs[key]

    def scores(self, settings: Settings) -> NDArray[np.float64]:
        """Dice of WT, TC and ET, (cases, 3); NaN of what is neither there nor found."""
        predictor, how, jobs = self._opened(settings)
        found = []
        for job, truth in zip(jobs, self._truth, strict=True):
            result = inference.segment(job, how, predictor, inference.plan(job, how, predictor))
            regions = to_regions(result.labels, SCHEME)
            found.append([dice(one, other) for one, other in zip(regions, truth, strict=True)])
        return np.array(found)

    def quality(self, settings: Settings) -> float:
        """Mean Dice over regions and cases."""
        return float(np.nanmean(self.scores(settings)))

    def share(self, settings: Settings) -> float:
        """Units that a head takes in the first network, as the tiles of `infer` lie over it."""
        predictor, how, jobs = self._opened(settings)
        plans = [inference.plan(job, how, predictor) for job in jobs]
        return float(np.mean([plan.tiles * math.prod(plan.tile) for plan in plans])) / VOXELS


class Kept:
    """Qualities in a file, which grows with each that is measured."""

    def __init__(self, path: Path | None, quality: Callable[[Settings], float]) -> None:
        self._path, self._quality = path, quality
        self._known: dict[str, float] = {}
        if path is not None and path.exists():
            self._known = json.loads(path.read_text(encoding="utf-8"))

    def __call__(self, settings: Settings) -> float:
        key = json.dumps(settings, sort_keys=True)
        if key not in self._known:
            self._known[key] = self._quality(settings)
            if self._path is not None:
                self._path.write_text(json.dumps(self._known, indent=1), encoding="utf-8")
        return self._known[key]


def with_equal_units(found: Variants) -> Variants:
    """Variants that differ in overlap alone run the same unit: its smallest time counts for all."""

    def rate(variant: Variant) -> float:
        return variant.seconds / variant.macs

    def unit_of(variant: Variant) -> tuple[object, ...]:
        return tuple(variant.settings[name] for name in ("model", "tta", "precision"))

    def timed(variant: Variant) -> Variant:
        alike = [one for one in found.variants if unit_of(one) == unit_of(variant)]
        return replace(variant, seconds=round(variant.macs * min(map(rate, alike)), 6))

    return replace(found, variants=tuple(map(timed, found.variants)))


def with_members_costs(found: Variants) -> Variants:
    """Ensembles take what their members take, of which only that of volumes overlaps."""

    def costed(variant: Variant) -> Variant:
        name, precision = variant.name.rsplit("-", 1)
        if name not in MEMBERS:
            return variant
        members = [found.named(f"{member}-{precision}") for member in MEMBERS[name]]
        return replace(
            variant,
            macs=sum(member.macs for member in members),
            seconds=round(sum(member.seconds for member in members), 6),
        )

    return replace(found, variants=tuple(map(costed, found.variants)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("phantoms", type=Path)
    parser.add_argument("--kept", type=Path, help="File of qualities.")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = sorted(path for path in options.phantoms.iterdir() if path.is_dir())
    judge = Judge(cases)
    measure = Kept(options.kept, judge.quality)
    found = collect(
        TASK,
        plans(),
        unit="head at 2 mm",
        metric=f"mean Dice on {len(cases)} validation phantoms",
        quality=lambda settings: measure(dict(settings)),
        weights=lambda settings: sum(
            locate(name, TASK).stat().st_size for name in split_names(settings["model"])
        ),
        share=lambda settings: judge.share(dict(settings)),
        only_named=lambda settings: settings["model"] == SLICES,
        repeats=options.repeats,
    )
    found = with_members_costs(with_equal_units(found))
    found.write(Path(weights.__file__).parent / f"{TASK}{SUFFIX}")


if __name__ == "__main__":
    main()
