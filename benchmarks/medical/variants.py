# SPDX-License-Identifier: Apache-2.0
"""Measure every variant of the packaged tumour models and keep them for `infer --within`.

    med-seg phantom -o PHANTOMS --count 4 --val 4 --generator growth --seed 41 --spacing 2
    python benchmarks/medical/variants.py PHANTOMS

Quality is the mean Dice of WT, TC and ET over the phantoms, which are of the generator that models
are chosen by and not trained on; with few of them a hundredth is noise. Cost is of 96 x 96 x 24
voxels of 2 mm: where tiles share more, they are predicted more often (of an ensemble both networks
count as often as that of volumes). Processor time on one thread. The network of slices keeps
nothing of what it was trained on, so that nothing would warn of strange cases: alone it is taken
only by name.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fieldfare.common.budget.collect import collect
from fieldfare.common.budget.variants import SUFFIX
from fieldfare.common.weights import locate
from fieldfare.medical import weights
from fieldfare.medical.data.cases import find_case
from fieldfare.medical.evaluation.compare import evaluate_case
from fieldfare.medical.inference import run as inference
from fieldfare.medical.inference.predict import load_predictor, split_names
from fieldfare.medical.inference.units import tiles_share
from fieldfare.medical.networks.models import TASK
from fieldfare.medical.options import DEFAULT_MODEL, ENSEMBLE, ENSEMBLE_STEPS

SLICES = ENSEMBLE.split("+")[1]
ENSEMBLED = {"postprocess": ENSEMBLE_STEPS}
WAYS: dict[str, dict[str, Any]] = {
    "volume": {"model": DEFAULT_MODEL, "overlap": None},
    "volume-thin": {"model": DEFAULT_MODEL, "overlap": 8},
    "volume-bare": {"model": DEFAULT_MODEL, "overlap": 0},
    "volume-flips": {"model": DEFAULT_MODEL, "overlap": None, "tta": "axial"},
    "slices": {"model": SLICES, "overlap": None},
    "slices-flips": {"model": SLICES, "overlap": None, "tta": "axial"},
    "both": {"model": ENSEMBLE, "overlap": None, **ENSEMBLED},
    "both-thin": {"model": ENSEMBLE, "overlap": 8, **ENSEMBLED},
}
PRECISIONS = {"volume": ("fp32", "bf16"), "slices": ("fp32", "bf16")}


def plans() -> dict[str, dict[str, Any]]:
    """Settings by name."""
    return {
        f"{name}-{precision}": {"tta": "none", **way, "precision": precision}
        for name, way in WAYS.items()
        for precision in PRECISIONS.get(name, ("bf16",))
    }


def quality(settings: dict[str, Any], cases: list[Path]) -> float:
    """Mean Dice over regions and cases."""
    predictor, _ = load_predictor(
        settings["model"], precision=settings["precision"], tta=settings["tta"]
    )
    how = inference.InferSettings(
        labels="brats2023",
        overlap=settings["overlap"],
        precision=settings["precision"],
        postprocess=settings.get("postprocess", "none"),
    )
    found = []
    for folder in cases:
        result = inference.segment_case(find_case(folder), predictor, how)
        with tempfile.TemporaryDirectory() as scratch:
            written = Path(scratch) / "seg.nii.gz"
            inference.write(written, result)
            truth = next(folder.glob("*seg.nii.gz"))
            found += [row["dice"] for row in evaluate_case(written, truth, "brats2023")]
    return float(np.nanmean(found))


def share(settings: dict[str, Any]) -> float:
    """Voxels predicted for each, in the network that overlaps."""
    predictor, _ = load_predictor(settings["model"])
    return tiles_share(predictor, settings["overlap"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("phantoms", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = sorted(path for path in options.phantoms.iterdir() if path.is_dir())
    found = collect(
        TASK,
        plans(),
        unit="96 x 96 x 24 voxels of 2 mm",
        metric=f"mean Dice on {len(cases)} validation phantoms",
        quality=lambda settings: quality(dict(settings), cases),
        weights=lambda settings: sum(
            locate(name, TASK).stat().st_size for name in split_names(settings["model"])
        ),
        share=lambda settings: share(dict(settings)),
        only_named=lambda settings: settings["model"] == SLICES,
        repeats=options.repeats,
    )
    found.write(Path(weights.__file__).parent / f"{TASK}{SUFFIX}")


if __name__ == "__main__":
    main()
