# SPDX-License-Identifier: Apache-2.0
"""Reduce an aerial image by four, enlarge it again, and measure against the truth.

Usage: python examples/remote_sensing.py FOLDER
"""

import sys
from pathlib import Path

import rasterio
from rasterio.enums import Resampling

from fieldfare.remote_sensing.super_resolution.evaluation.metrics import psnr
from fieldfare.remote_sensing.super_resolution.inference.run import InferSettings, infer

SAMPLE = Path(__file__).parents[1] / "packages/remote_sensing/samples/OSBS_029_20cm.tif"
SIDE = 160


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with rasterio.open(SAMPLE) as source:
        truth = source.read(window=((0, SIDE), (0, SIDE))) / 255
        small = source.read(
            window=((0, SIDE), (0, SIDE)),
            out_shape=(3, SIDE // 4, SIDE // 4),
            resampling=Resampling.average,
        )
        profile = source.profile | {"width": SIDE // 4, "height": SIDE // 4}
        profile["transform"] = source.transform * source.transform.scale(4, 4)
    reduced = folder / "reduced.tif"
    with rasterio.open(reduced, "w", **{**profile, "tiled": False}) as target:
        target.write(small)
    for model in ("bicubic", "ediffsr_small_x4"):
        enlarged = folder / f"{model}.tif"
        settings = InferSettings(model=model, steps=1)
        infer(reduced, enlarged, settings, settings.restorers())
        with rasterio.open(enlarged) as result:
            found = result.read() / 255
        print(f"{model}: PSNR {psnr(found, truth):.2f} dB, {enlarged}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
