# SPDX-License-Identifier: Apache-2.0
"""Whether results of rs-sr keep the input's radiometry, clouds and all, and what that costs.

    python benchmarks/remote_sensing/radiometry.py "$FIELDFARE_DATA/sr/train" --every 40

Each tile becomes a Sentinel-2-like one: uint16, reflectance times 10,000 plus 1000, clear and with
clouds on 1 % of it, reduced by the documented filter and rounded. Printed for each model, with and
without --consistent: the largest and root mean square difference between input and result reduced
again (in units of 10,000), and the gain over bicubic in dB, clear and cloudy, over what is further
than 2 input pixels from a cloud; then seconds for the tiles together.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from scipy import ndimage

from fieldfare.common.runtime import set_threads
from fieldfare.remote_sensing.super_resolution.data.reduction import reduce_valid
from fieldfare.remote_sensing.super_resolution.inference.run import InferSettings, infer

SCALE, CLEAR = 4, 1 / 100


def reflectance(path: Path) -> np.ndarray:
    """A tile as (3, H, W) float32: 200 to 3000, plus the offset of 1000."""
    with rasterio.open(path) as source:
        values: np.ndarray = source.read((1, 2, 3)).astype(np.float32)
    return 1200 + values / 255 * 2800


def clouds(side: int, rng: np.random.Generator) -> np.ndarray:
    """Opacity (side, side) of soft-edged clouds on `CLEAR` of the tile."""
    field = ndimage.gaussian_filter(rng.standard_normal((side, side)), 12)
    edge = np.quantile(field, 1 - CLEAR)
    opacity: np.ndarray = ((field - edge) / (0.1 * field.std()) + 0.5).clip(0, 1)
    return opacity


def reduced(high: np.ndarray) -> np.ndarray:
    """By the documented filter, (3, h, w) float32."""
    shape = (len(high), *(side // SCALE for side in high.shape[1:]))
    return reduce_valid(high.astype(np.float32), np.ones(shape, bool), SCALE)


def enlarged(low: np.ndarray, settings: InferSettings, folder: Path) -> np.ndarray:
    """What `rs-sr infer` writes."""
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint16", "crs": "EPSG:32611"}
    height, width = low.shape[1:]
    transform = rasterio.Affine(10, 0, 500_000, 0, -10, 4_000_000)
    source = folder / "in.tif"
    with rasterio.open(
        source, "w", height=height, width=width, transform=transform, nodata=0, **profile
    ) as sink:
        sink.write(low)
    infer(source, folder / "out.tif", settings, settings.restorers())
    with rasterio.open(folder / "out.tif") as found:
        values: np.ndarray = found.read().astype(np.float32)
        return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tiles", type=Path)
    parser.add_argument("--every", type=int, default=1, help="Take every n-th tile.")
    parser.add_argument("--match", default="*.tif")
    parser.add_argument("--model", default="ediffsr_small_x4")
    parser.add_argument("--steps", type=int, action="append")
    options = parser.parse_args()
    set_threads()
    paths = sorted(options.tiles.glob(options.match))[:: options.every]
    runs = {"bicubic": InferSettings("bicubic")}
    for steps in options.steps or [1, 2]:
        for consistent in (False, True):
            name = f"{steps} step{'s' * (steps > 1)}{', consistent' * consistent}"
            runs[name] = InferSettings(
                options.model, steps=steps, consistent=consistent, precision="fp32"
            )
    scores: dict[str, dict[str, list[float]]] = {
        name: {key: [] for key in ("worst", "rms", "clear", "cloudy", "seconds")} for name in runs
    }
    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(paths):
            truth = reflectance(path)
            opacity = clouds(truth.shape[1], np.random.default_rng(number))
            cloudy = truth * (1 - opacity) + opacity * 9000
            away = ~ndimage.binary_dilation(opacity > 0, iterations=2 * SCALE)
            away[:SCALE] = away[-SCALE:] = away[:, :SCALE] = away[:, -SCALE:] = False
            for name, settings in runs.items():
                score = scores[name]
                for kind, high in (("clear", truth), ("cloudy", cloudy)):
                    low = np.rint(reduced(high)).astype(np.uint16)
                    began = time.monotonic()
                    found = enlarged(low, settings, Path(folder))
                    score["seconds"].append(time.monotonic() - began)
                    score[kind].append(float(np.square(found - high)[:, away].mean()))
                    if kind == "cloudy":
                        left = reduced(found) - low
                        score["worst"].append(float(np.abs(left).max()))
                        score["rms"].append(float(np.square(left).mean()))
    print(f"{len(paths)} tiles, clouds on {CLEAR:.0%}")
    base = scores["bicubic"]
    for name, score in scores.items():
        gains = [
            float(np.mean(10 * np.log10(np.array(base[kind]) / np.array(score[kind]))))
            for kind in ("clear", "cloudy")
        ]
        print(
            f"{name:22} worst {max(score['worst']):8.2f}  rms {np.mean(score['rms']) ** 0.5:7.3f}"
            f"  gain clear {gains[0]:6.3f} dB  cloudy {gains[1]:6.3f} dB"
            f"  {sum(score['seconds']):5.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
