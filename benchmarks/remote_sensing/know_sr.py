# SPDX-License-Identifier: Apache-2.0
"""Write into a model's file what it knows: how its training inputs look, and what gain to expect.

    python benchmarks/remote_sensing/know_sr.py ediffsr_small_x4 out.safetensors \\
        "$FIELDFARE_DATA/sr/train" "$FIELDFARE_DATA/sr_more/train" --trained-on 1 --share 0

The estimate of looks is fitted on every third of the tiles that are not held out, degraded at
random; what the model knows are the tiles of the first folders (--trained-on), a share of them
degraded (--share, as in training). The expected gain is calibrated on every 40th tile of all
folders, which training holds out, clean and degraded. Printed: for those held-out tiles the error
of the estimates, and which share of each kind of degradation is named; then how expected and true
gain agree.
"""

import argparse
from pathlib import Path

import numpy as np

from fieldfare.common.runtime import set_threads
from fieldfare.common.trust.knowledge import PART, Knowledge, Samples, learn
from fieldfare.common.weights import load_model_file, locate, save_with_page
from fieldfare.remote_sensing.rasters.looks import features_of
from fieldfare.remote_sensing.rasters.tiles import read_tiles
from fieldfare.remote_sensing.super_resolution.data.degradations import (
    Degradation,
    DegradationRange,
    degrade,
)
from fieldfare.remote_sensing.super_resolution.evaluation import compare, metrics
from fieldfare.remote_sensing.super_resolution.inference import looks, restore
from fieldfare.remote_sensing.super_resolution.inference.familiarity import (
    LAYERS,
    QUALITY,
    signs_of,
)

HOLDOUT, COPIES, EVERY = 40, 4, 3
STRONG = DegradationRange(1, blur_sigma=1.5, noise_sigma=10, sharpen_amount=3, jpeg_quality=20)
KINDS = {
    "clean": Degradation(),
    "blurred": Degradation(blur_sigma=1.0),
    "blurred 1.5": Degradation(blur_sigma=1.5),
    "over-sharpened": Degradation(sharpen_amount=1.5, sharpen_sigma=0.8),
    "over-sharpened 3": Degradation(sharpen_amount=3, sharpen_sigma=0.8),
    "noisy": Degradation(noise_sigma=6),
    "compressed": Degradation(jpeg_quality=50),
    "compressed 25": Degradation(jpeg_quality=25),
}


def seen(low: np.ndarray) -> np.ndarray:
    """Bytes (h, w, C) as a model sees them."""
    image: np.ndarray = (low.transpose(2, 0, 1) / 255).astype(np.float32)
    return image


def true_signs(tile: np.ndarray, how: Degradation, rng: np.random.Generator) -> np.ndarray:
    """`looks.SIGNS` of a degradation; its sharpness is measured without noise and compression."""
    kept = Degradation(
        how.kernel, how.blur_sigma, 0, False, how.sharpen_amount, how.sharpen_sigma, 0
    )
    power = [
        10 * features_of(seen(degrade(tile, 4, each, rng)))[4:6].mean()
        for each in (kept, Degradation())
    ]
    return np.array(
        [power[0] - power[1], how.noise_sigma, 100 - how.jpeg_quality if how.jpeg_quality else 0]
    )


def many(
    tiles: list[np.ndarray], range_: DegradationRange, copies: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, F) and true signs (N, 3) of copies of each tile, degraded at random."""
    features, signs = [], []
    for number, tile in enumerate(tiles):
        for copy in range(copies):
            rng = np.random.default_rng((seed, number, copy))
            how = range_.draw(rng) or Degradation()
            features.append(features_of(seen(degrade(tile, 4, how, rng))))
            signs.append(true_signs(tile, how, rng))
    return np.array(features), np.array(signs)


def gains(
    tiles: list[np.ndarray],
    model: str,
    home: DegradationRange,
    copies: int,
    estimate: looks.Looks,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of held-out tiles, at home and strongly degraded: features, gain in dB, which are at home."""
    own, base = restore.load_restorer(model, precision="fp32"), restore.BicubicRestorer()
    features, quality, at_home = [], [], []
    for number, tile in enumerate(tiles):
        high = seen(tile[: len(tile) // 4 * 4, : tile.shape[1] // 4 * 4])
        for copy in range(copies):
            rng = np.random.default_rng((9, number, copy))
            familiar = copy < (copies + 1) // 2
            how = (home if familiar else STRONG).draw(rng) or Degradation()
            low = degrade((high * 255).round().astype(np.uint8).transpose(1, 2, 0), 4, how, rng)
            images = [
                compare.restore_by_default(seen(low), own, estimate),
                compare.restore(seen(low), base)[0],
            ]
            scores = [metrics.psnr(metrics.rounded(image), high) for image in images]
            features.append(features_of(seen(low)))
            quality.append(scores[0] - scores[1])
            at_home.append(familiar)
    return np.array(features), np.array(quality), np.array(at_home)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("output", type=Path)
    parser.add_argument("tiles", type=Path, nargs="+")
    parser.add_argument("--trained-on", type=int, required=True, help="So many of the folders.")
    parser.add_argument("--share", type=float, required=True, help="Of degraded training inputs.")
    parser.add_argument(
        "--copies", type=int, default=8, help="Calibration copies of a tile; 0: looks alone."
    )
    options = parser.parse_args()
    set_threads()
    home = DegradationRange(options.share)
    folders = [read_tiles(folder, 3) for folder in options.tiles]
    trained = [[t for n, t in enumerate(part) if n % HOLDOUT][::EVERY] for part in folders]
    held = [tile for part in folders for tile in part[::HOLDOUT]]

    known, groups = [], {}
    for number, (folder, tiles) in enumerate(
        zip(options.tiles[: options.trained_on], trained, strict=False)
    ):
        known.append(many(tiles, home, 1 if options.share == 0 else 4, number)[0])
        groups[folder.parent.name] = [known[-1]]
    every = [tile for part in trained for tile in part]
    clean, _ = many(every, DegradationRange(0), 1, 0)
    estimate = looks.fitted(*many(every, STRONG, COPIES, 5), clean, np.concatenate(known))

    features, signs = many(held, STRONG, 20, 6)
    error = np.abs(estimate.estimate(features) - signs)
    print("held-out tiles, degraded at random: mean error, spread of the truth")
    for name, mean, spread in zip(looks.SIGNS, error.mean(0), signs.std(0), strict=True):
        print(f"  {name:12} {mean:6.2f}  {spread:6.2f}")
    print("what is named; known from", estimate.low.round(1), "to", estimate.high.round(1))
    for kind, how in KINDS.items():
        rng = np.random.default_rng(7)
        found = estimate.estimate(
            np.stack([features_of(seen(degrade(tile, 4, how, rng))) for tile in held])
        )
        words = [estimate.sentence(row) for row in found]
        scene = estimate.sentence(np.median(found, axis=0))
        print(
            f"  {kind:16} tiles named {np.mean([w is not None for w in words]):5.0%}  "
            f"sharpness {np.median(found[:, 0]):6.1f}; all tiles as one scene: {scene}"
        )

    card, tensors = load_model_file(locate(options.model, "super-resolution"))
    parts = {looks.PART: estimate.to_tensors()}
    if options.copies:
        parts[PART] = calibrated(options, home, held, groups, estimate).to_tensors()
    save_with_page(options.output, tensors, card, parts)


def calibrated(
    options: argparse.Namespace,
    home: DegradationRange,
    held: list[np.ndarray],
    groups: dict[str, list[np.ndarray]],
    estimate: looks.Looks,
) -> Knowledge:
    """What gain to expect, and how that agrees with the true gain."""
    features, quality, at_home = gains(held, options.model, home, options.copies, estimate)
    validation = Samples([features], signs_of(estimate.estimate(features)), quality, at_home)
    knowledge = learn(
        LAYERS,
        groups,
        validation,
        signs=("over-sharpness", "blur", "noise", "compression"),
        quality=QUALITY,
    )
    rows, near = knowledge.rows([features], validation.signs)
    expected = knowledge.expectation.quality(knowledge.expectation.indices(rows))[1]
    print(knowledge.summary())
    off = np.abs(expected - quality).mean()
    alike = np.corrcoef(expected, quality)[0, 1]
    print(f"gain: true {quality.mean():.2f} +- {quality.std():.2f} dB; expected {off:.2f} off,")
    print(f"  correlation {alike:.2f}")
    alarms = [knowledge.judge(rows[i : i + 1], near[i : i + 1]).alarm for i in range(len(rows))]
    print(
        f"alarms: home {np.mean(np.array(alarms)[at_home]):.1%}, strongly degraded "
        f"{np.mean(np.array(alarms)[~at_home]):.1%}"
    )
    return knowledge


if __name__ == "__main__":
    main()
