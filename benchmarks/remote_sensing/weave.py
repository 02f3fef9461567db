# SPDX-License-Identifier: Apache-2.0
"""Whether a network taught by a comparing network with strides weaves their grid into its images.

    python benchmarks/remote_sensing/weave.py "$FIELDFARE_DATA/sr/train" --every 40 \\
        --model ediffsr_small_x4 --model run/model.safetensors --picture weave.png

A grid that content modulates shows in the spectrum around the points (i / s, j / s) cycles a
pixel for a stride s. Printed for s = 2, 4, 8, 16: power within 2 frequencies of these points over
that of their surroundings (5 to 9 frequencies away) in dB, of what a result adds to bicubic
enlargement, and of what the truth adds; 0 is none. Points of a smaller stride are not counted
again. Multiples of 1/4 are also the input's own grid: the truth has no peak there, any enlargement
may.
"""

import argparse
from pathlib import Path

import numpy as np

from fieldfare.common.runtime import set_threads
from fieldfare.remote_sensing.rasters.pictures import save_sheet
from fieldfare.remote_sensing.rasters.tiles import read_tiles
from fieldfare.remote_sensing.super_resolution.data.reduction import reduce_bicubic
from fieldfare.remote_sensing.super_resolution.evaluation import compare
from fieldfare.remote_sensing.super_resolution.inference import restore

STRIDES, SIDE = (2, 4, 8, 16), 256
SHOWN = slice(64, 160)


def spectrum(image: np.ndarray) -> np.ndarray:
    """Power of the grey image, windowed; (SIDE, SIDE), of sum 1."""
    grey = image.mean(axis=0)[:SIDE, :SIDE]
    window = np.outer(np.hanning(SIDE), np.hanning(SIDE))
    power: np.ndarray = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2
    return power / power.sum()


def peak(power: np.ndarray, stride: int) -> float:
    """Mean over the points of a stride, in dB."""
    step, found = SIDE // stride, []
    rows = np.arange(SIDE)
    for i in range(stride):
        for j in range(stride):
            if (i % 2 == 0 and j % 2 == 0) or (i, j) == (0, 0):
                continue
            away = [np.abs((rows - k * step + SIDE // 2) % SIDE - SIDE // 2) for k in (i, j)]
            distance = np.maximum(away[0][:, None], away[1][None])
            near, around = power[distance <= 2], power[(distance >= 5) & (distance <= 9)]
            found.append(10 * np.log10(near.mean() / around.mean()))
    return float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tiles", type=Path)
    parser.add_argument("--every", type=int, default=40)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--steps", type=int, action="append")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    set_threads()
    tiles = [t for t in read_tiles(options.tiles, 3)[:: options.every] if min(t.shape[:2]) >= SIDE]
    runs = {
        f"{Path(model).parent.name or model} {steps}": restore.load_restorer(
            model, steps=steps, precision="fp32"
        )
        for model in options.model
        for steps in options.steps or [1, 2]
    }
    sums = {name: np.zeros((SIDE, SIDE)) for name in ("truth", *runs)}
    panels = []
    for tile in tiles:
        high = (tile[:SIDE, :SIDE].transpose(2, 0, 1) / 255).astype(np.float32)
        low = (reduce_bicubic(tile[:SIDE, :SIDE], 4).transpose(2, 0, 1) / 255).astype(np.float32)
        bicubic, _ = compare.restore(low, restore.BicubicRestorer())
        images = {"truth": high}
        for name, restorer in runs.items():
            images[name], _ = compare.restore(low, restorer, consistent=False)
        for name, image in images.items():
            sums[name] += spectrum(image - bicubic)
        if len(panels) < 5:
            shown = [bicubic, *(images[name] for name in (*runs, "truth"))]
            crops = [i[:, SHOWN, SHOWN].repeat(3, 1).repeat(3, 2).clip(0, 1) for i in shown]
            panels.append([np.rint(i * 255).astype(np.uint8).transpose(1, 2, 0) for i in crops])
    print(f"{len(tiles)} tiles; peaks in dB at stride", *STRIDES)
    for name, power in sums.items():
        print(f"{name:24}", *(f"{peak(power, stride):6.2f}" for stride in STRIDES), flush=True)
    if options.picture:
        save_sheet(options.picture, panels, ["bicubic", *runs, "truth"])


if __name__ == "__main__":
    main()
