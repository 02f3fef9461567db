# SPDX-License-Identifier: Apache-2.0
"""Speed and peak memory of rs-buildings infer on large scenes, each in a fresh process.

    python benchmarks/remote_sensing/buildings_memory.py [--side 10000] [--sparse 40000]

Three runs of the packaged model: a scene of 600 x 600 pixels (the program and the model), a dense
one of --side, and a sparse one of --sparse whose blocks are missing but for a few. Beside the
dense one the same model with two float64 arrays of the whole scene (16 bytes per pixel), the way of
tools that hold sums and weights in memory.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

CHILD = """
import resource, sys
from fieldfare.remote_sensing.buildings.cli import main
try:
    main(sys.argv[1:], standalone_mode=False)
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""

WHOLE = """
import resource, sys
import numpy as np, rasterio
import rasterio.features
from fieldfare.common.runtime import set_threads
from fieldfare.remote_sensing.buildings.options import DEFAULT_MODEL
from fieldfare.remote_sensing.buildings.inference.predict import load_predictor
set_threads()
predict = load_predictor(DEFAULT_MODEL, depth=int(sys.argv[2]))
with rasterio.open(sys.argv[1]) as scene:
    image = scene.read()
tile, step = 512, 384
total = np.zeros((1, *image.shape[1:]))
weight = np.zeros((1, *image.shape[1:]))
for top in range(0, image.shape[1], step):
    for left in range(0, image.shape[2], step):
        part = image[:, top : top + tile, left : left + tile].astype(np.float32) / 255
        here = np.s_[:, top : top + part.shape[1], left : left + part.shape[2]]
        total[here] += predict(part[None], None)[0, :1]
        weight[here] += 1
mask = (total / weight > 0.5).astype(np.uint8)
print(sum(1 for _ in rasterio.features.shapes(mask, mask=mask > 0)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write_scene(path: Path, side: int, town: np.ndarray, *, every: int) -> None:
    """A tiled RGB scene of 0.3 m in UTM; each `every`-th place of it holds the town."""
    height, width = town.shape[1:]
    profile = {"driver": "GTiff", "count": 3, "height": side, "width": side, "dtype": "uint8"}
    profile |= {"tiled": True, "compress": "lzw", "sparse_ok": True, "bigtiff": "yes", "nodata": 0}
    profile |= {"crs": "EPSG:32636", "transform": rasterio.Affine(0.3, 0, 4e5, 0, -0.3, 4e4)}
    number = 0
    with rasterio.open(path, "w", **profile) as sink:
        for top in range(0, side, height):
            for left in range(0, side, width):
                if number % every == 0:
                    rows, columns = min(height, side - top), min(width, side - left)
                    window = Window(left, top, columns, rows)
                    sink.write(town[:, :rows, :columns], window=window)
                number += 1


def measure(code: str, *arguments: object) -> tuple[float, float]:
    """Peak memory in MB and seconds of a Python process."""
    began = time.monotonic()
    answer = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(answer.stdout.split()[-1]) / 1024, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("town", type=Path, help="An RGB image to fill the scenes with.")
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--sparse", type=int, default=40_000)
    parser.add_argument("--depth", type=int, default=4)
    options = parser.parse_args()
    with rasterio.open(options.town) as source:
        town = np.maximum(source.read([1, 2, 3]), 1)
    with tempfile.TemporaryDirectory() as folder:
        peaks = {}
        for name, side, every in (
            ("small", 600, 1),
            ("dense", options.side, 1),
            ("sparse", options.sparse, 400),
        ):
            scene = Path(folder) / f"{name}.tif"
            write_scene(scene, side, town, every=every)
            target = scene.with_suffix(".gpkg")
            verb = ("infer", scene, "-o", target, "--depth", options.depth, "--quiet")
            peaks[name], seconds = measure(CHILD, *verb)
            speed = side**2 / 1e6 / seconds
            above = peaks[name] - peaks["small"]
            print(
                f"{name} {side} x {side}: peak {peaks[name]:.0f} MB, {above:.0f} above the small "
                f"one; {seconds:.0f} s, {speed:.2f} MPix/s",
                flush=True,
            )
            if name == "dense":
                peak, seconds = measure(WHOLE, scene, options.depth)
                print(
                    f"dense, arrays of the whole scene: peak {peak:.0f} MB, "
                    f"{peak - peaks['small']:.0f} above the small one; {seconds:.0f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
