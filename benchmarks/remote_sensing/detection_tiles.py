# SPDX-License-Identifier: Apache-2.0
"""How much of what rs-detect finds depends on how the tiles lie.

    python benchmarks/remote_sensing/detection_tiles.py SCENE.tif... [--model NAME|PATH]

Each scene is searched with several tile sizes and overlaps; of each a row says how many detections
have one of the first choice within half a metre (maximum matching), and how far apart these lie.
"""

import argparse
from pathlib import Path

import numpy as np

from fieldfare.common import console
from fieldfare.common.runtime import set_threads
from fieldfare.remote_sensing.detection.evaluation.matching import pair_points
from fieldfare.remote_sensing.detection.inference.run import InferSettings, detect, prepare
from fieldfare.remote_sensing.detection.options import DEFAULT_MODEL

CHOICES = ((576, 64), (512, 128), (512, 64), (384, 128), (256, 128), (256, 64), (128, 64))
NEAR = 0.5
"""Metres."""


def main() -> None:
    """Print a row for each choice of tile and overlap, all scenes together."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenes", type=Path, nargs="+")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    arguments = parser.parse_args()
    set_threads()
    first: list[np.ndarray] = []
    rows = []
    for tile, overlap in CHOICES:
        settings = InferSettings(arguments.model, tile=tile, overlap=overlap)
        predictor = settings.predictor()
        middles = []
        for path in arguments.scenes:
            job = prepare(path, settings, predictor)
            with job.scene:
                middles.append(detect(job, settings, predictor).centres * predictor.config.gsd)
        first = first or middles
        away: list[float] = []
        for here, there in zip(middles, first, strict=True):
            pairs = pair_points(here, there, NEAR)
            kept = pairs >= 0
            away += np.hypot(*(here[pairs[kept]] - there[kept]).T).tolist()
        found = sum(map(len, middles))
        row = {"tile": tile, "overlap": overlap, "found": found}
        row["same"] = 2 * len(away) / (found + sum(map(len, first)))
        rows.append(row | {"median_m": float(np.median(away)) if away else None})
    print(console.table(rows))


if __name__ == "__main__":
    main()
