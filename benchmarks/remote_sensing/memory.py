# SPDX-License-Identifier: Apache-2.0
"""Peak memory of rs-sr infer on a large scene against a small one, each in a fresh process.

    python benchmarks/remote_sensing/memory.py [--side 4000] [--model bicubic]

The difference is what the scene's size costs; the small run is the program and the model.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio

CHILD = """
import resource, sys
from fieldfare.remote_sensing.super_resolution.cli import main
try:
    main(sys.argv[1:], standalone_mode=False)
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write_scene(path: Path, side: int) -> None:
    """A tiled RGB scene of smooth noise, written by rows."""
    profile = {"driver": "GTiff", "count": 3, "height": side, "width": side, "dtype": "uint8"}
    rng = np.random.default_rng(0)
    with rasterio.open(path, "w", **profile, tiled=True, compress="lzw") as sink:
        for top in range(0, side, 256):
            rows = min(256, side - top)
            block = rng.integers(0, 255, (3, rows, side), dtype=np.uint8)
            sink.write(block, window=rasterio.windows.Window(0, top, side, rows))


def peak_megabytes(scene: Path, model: str) -> tuple[float, float]:
    """Largest resident set and wall-clock seconds of one run."""
    target = scene.with_name(scene.stem + "_x4.tif")
    began = time.monotonic()
    answer = subprocess.run(
        [sys.executable, "-c", CHILD, "infer", scene, "-o", target, "--model", model, "--quiet"],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(answer.stdout.split()[-1]) / 1024, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4000)
    parser.add_argument("--model", default="bicubic")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        peaks = {}
        for side in (64, options.side):
            scene = Path(folder) / f"{side}.tif"
            write_scene(scene, side)
            peaks[side], seconds = peak_megabytes(scene, options.model)
            print(f"{side} x {side}: peak {peaks[side]:.0f} MB, {seconds:.0f} s")
        print(f"above the small scene: {peaks[options.side] - peaks[64]:.0f} MB")


if __name__ == "__main__":
    main()
