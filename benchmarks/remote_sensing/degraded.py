# SPDX-License-Identifier: Apache-2.0
"""Gain over bicubic, and invented energy, on inputs that went through what imagery goes through.

    python benchmarks/remote_sensing/degraded.py "$FIELDFARE_DATA/sr/train" \\
        "$FIELDFARE_DATA/sr_more/train" --model ediffsr_small_x4 --model run/model.safetensors

Of each folder every n-th tile is taken: with 40 those that `rs-sr train` holds out. A column a kind
of degradation, a row a model: mean gain in PSNR over bicubic in dB, consistent, (free) not, and as
`rs-sr infer` does without options; then `high`, of the free one, power above the input's Nyquist
frequency over bicubic's, with the truth's below. With --native the tiles themselves are enlarged
as they are, and only `high` is printed.
"""

import argparse
from pathlib import Path

import numpy as np

from fieldfare.common.runtime import set_threads
from fieldfare.remote_sensing.super_resolution.data.degradations import Degradation, degrade
from fieldfare.remote_sensing.super_resolution.evaluation import compare, metrics
from fieldfare.remote_sensing.super_resolution.inference import looks, restore

NATIVE = 128

KINDS = {
    "clean": Degradation(),
    "box": Degradation(kernel="box"),
    "blur": Degradation(blur_sigma=0.8),
    "noise": Degradation(noise_sigma=4),
    "sharp": Degradation(sharpen_amount=1.5, sharpen_sigma=0.8),
    "jpeg": Degradation(jpeg_quality=60),
    "camera": Degradation("box", blur_sigma=0.5, noise_sigma=3, sharpen_amount=1),
}


def power_above_nyquist(image: np.ndarray, scale: int = 4) -> float:
    """Mean power of the grey image beyond the input's Nyquist frequency in rows or columns."""
    grey = image.mean(axis=0)
    window = np.outer(*(np.hanning(side + 2)[1:-1] for side in grey.shape))
    power = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2
    rows, columns = (np.abs(np.fft.fftfreq(side)) for side in grey.shape)
    return float(power[np.maximum(rows[:, None], columns) > 0.5 / scale].mean())


def native(tiles: list[np.ndarray], runs: dict[str, restore.Restorer]) -> None:
    """Enlarge the upper left corner of each tile as it is, and print the power above Nyquist."""
    corners = [tile[:, :NATIVE, :NATIVE] for tile in tiles]
    base = [power_above_nyquist(compare.restore(c, runs["bicubic"])[0]) for c in corners]
    for name, restorer in runs.items():
        for consistent in (False, True):
            found = [
                power_above_nyquist(compare.restore(c, restorer, consistent=consistent)[0])
                for c in corners
            ]
            ratios = np.array(found) / np.array(base)
            held = "consistent" if consistent else "free"
            print(f"{name:24} {held:10} high {ratios.mean():5.2f}  each", *ratios.round(2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tiles", type=Path, nargs="+")
    parser.add_argument("--every", type=int, default=40)
    parser.add_argument("--limit", type=int, default=100, help="Most tiles of a folder.")
    parser.add_argument("--model", action="append")
    parser.add_argument("--steps", type=int, action="append")
    parser.add_argument("--kind", action="append", choices=list(KINDS))
    parser.add_argument("--match", default="*", help="Only tiles whose names match.")
    parser.add_argument("--native", action="store_true")
    options = parser.parse_args()
    set_threads()
    tiles = []
    for folder in options.tiles:
        found = compare.find_pairs(folder, 4, options.match)[:: options.every]
        tiles += [compare.read_pair(path, None, 4).high for path, _ in found[: options.limit]]
    runs: dict[str, restore.Restorer] = {"bicubic": restore.BicubicRestorer()}
    known: dict[str, looks.Looks | None] = {}
    for model in options.model or ["ediffsr_small_x4"]:
        for steps in options.steps or [1, 2]:
            name = f"{'/'.join(Path(model).parts[-2:])} {steps}"
            if name in runs:
                parser.error(f"two models would be called {name}")
            runs[name] = restore.load_restorer(model, steps=steps, precision="fp32")
            path = restore.model_path(model)
            known[name] = looks.looks_of(path) if path else None
    print(f"{len(tiles)} tiles")
    if options.native:
        native(tiles, runs)
        return
    for kind in options.kind or KINDS:
        scored: dict[str, list[tuple[float, ...]]] = {name: [] for name in runs}
        highs = []
        for number, high in enumerate(tiles):
            levels = np.rint(high * 255).astype(np.uint8).transpose(1, 2, 0)
            seen = degrade(levels, 4, KINDS[kind], np.random.default_rng(number))
            low = (seen.transpose(2, 0, 1) / 255).astype(np.float32)
            highs.append(power_above_nyquist(high))
            for name, restorer in runs.items():
                free, _ = compare.restore(low, restorer, consistent=False)
                held = default = free
                if name != "bicubic":
                    held = compare.project(free, low, np.ones(low.shape, bool), (0, 1))
                    default = compare.restore_by_default(low, restorer, known[name])
                images = (held, free, default)
                scores = [metrics.psnr(metrics.rounded(image), high) for image in images]
                scored[name].append((*scores, power_above_nyquist(free)))
        base = np.array(scored.pop("bicubic"))
        for name, scores in scored.items():
            gain = (np.array(scores) - base)[:, :3].mean(axis=0)
            ratio = (np.array(scores)[:, 3] / base[:, 3]).mean()
            print(
                f"{kind:7} {name:24} bicubic {base[:, 0].mean():6.2f} dB  gain {gain[0]:6.3f} dB"
                f"  free {gain[1]:6.3f} dB  default {gain[2]:6.3f} dB  high {ratio:5.2f}"
                f"  truth {np.mean(np.array(highs) / base[:, 3]):6.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
