# SPDX-License-Identifier: Apache-2.0
"""Draw a synthetic case, segment it, measure it, write the report. Not a medical device.

Usage: python examples/medical.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np

from fieldfare.medical.data.cases import find_case, find_labels
from fieldfare.medical.evaluation.compare import evaluate_case
from fieldfare.medical.inference.predict import load_predictor
from fieldfare.medical.inference.run import InferSettings, open_case, plan, segment, write
from fieldfare.medical.phantoms.generate import make_phantom, write_case
from fieldfare.medical.report.page import write_report


def main(folder: Path) -> None:
    case_folder = folder / "phantom"
    write_case(case_folder, make_phantom(np.random.default_rng(99), spacing=2.0))
    case = find_case(case_folder)
    predictor, card = load_predictor("reversible_unet_phantom", device="cpu")
    settings = InferSettings()
    job = open_case(case, settings, predictor, keep_images=True)
    result = segment(job, settings, predictor, plan(job, settings, predictor))
    labels = folder / "labels.nii.gz"
    write(labels, result, case=case.name, model=card.name)
    for row in evaluate_case(labels, find_labels(case_folder), "brats2023"):
        print(f"{row['region']}: Dice {row['dice']:.3f}, {row['predicted_ml']:.1f} ml")
    page = folder / "report.html"
    write_report(
        page,
        images=job.images,
        seg=result.labels,
        affine=result.reference.affine,
        scheme=result.scheme,
        facts={"case": case.name},
        card=card,
    )
    print(page)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
