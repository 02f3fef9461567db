# SPDX-License-Identifier: Apache-2.0
"""Seconds and peak memory of med-seg infer on one case, each network in a fresh process.

    python benchmarks/medical/case_speed.py [--case DIR] [--models NAME|PATH|PRESET ...]
        [--max-memory 2GiB] [--csv FILE]

Without --case a head is made up: 240 x 240 x 155 voxels of 1 mm, a brain-sized ellipsoid of noise.
Models that are names of presets are run with fresh weights, which cost the same as trained ones.
Beside the whole command, which also starts Python and torch, stands the prediction alone.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from fieldfare.common import console
from fieldfare.common.weights import ModelCard, save_model_file
from fieldfare.medical.networks.config import PRESETS
from fieldfare.medical.networks.create import create_network
from fieldfare.medical.networks.models import TASK

SHAPE = (240, 240, 155)
MODELS = ("reversible_small", "resunet_aspp_small")
CHILD = "import sys; from fieldfare.medical.cli import main; main(sys.argv[1:])"


def write_head(folder: Path) -> Path:
    """A brain of about 1.5 l, as BraTS lays it: four images of int16 on one grid."""
    affine = np.diag([-1.0, -1, 1, 1])
    affine[1, 3] = 239
    axes = np.meshgrid(*[np.linspace(-1, 1, length) for length in SHAPE], indexing="ij")
    brain = sum((axis / radius) ** 2 for axis, radius in zip(axes, (0.6, 0.72, 0.84), strict=True))
    generator = np.random.default_rng(0)
    for name in ("t1", "t1ce", "t2", "flair"):
        values = generator.integers(1, 1000, SHAPE, dtype=np.int16) * (brain < 1)
        nib.save(nib.Nifti1Image(values.astype(np.int16), affine), folder / f"P_{name}.nii.gz")
    return folder


def model_file(name: str, folder: Path) -> str:
    """A preset's network with fresh weights as a file; other names as they are."""
    if name not in PRESETS:
        return name
    network = create_network(PRESETS[name])
    path = folder / f"{name}.safetensors"
    card = ModelCard(name, TASK, "Fresh weights.", network.config.to_dict())
    save_model_file(path, network.state_dict(), card)
    return str(path)


def measure(case: Path, model: str, folder: Path, extra: list[str]) -> dict[str, Any]:
    """One run of the command as a row."""
    output = folder / "seg.nii.gz"
    arguments = ["infer", str(case), "-o", str(output), "--model", model, "--json", "--overwrite"]
    began = time.perf_counter()
    answer = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments, *extra],
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    if answer.returncode:
        sys.exit(f"{model}: {answer.stderr}")
    result = json.loads(answer.stdout)
    plan = result["plan"]
    return {
        "model": result["model"],
        "tiles": plan["tiles"],
        "tile": "x".join(map(str, plan["tile"])),
        "precision": plan["precision"],
        "predict_s": result["seconds"],
        "command_s": round(seconds, 1),
        "predicted_mib": round(plan["predicted_bytes"] / 2**20),
        "peak_mib": round(result["peak_bytes"] / 2**20),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
    }


def main() -> None:
    """Parse, run each model, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", type=Path)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--max-memory")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    extra = ["--max-memory", options.max_memory] if options.max_memory else []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        case = options.case or write_head(folder)
        rows = [measure(case, model_file(model, folder), folder, extra) for model in options.models]
    print(console.table(rows))
    if options.csv:
        with options.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
