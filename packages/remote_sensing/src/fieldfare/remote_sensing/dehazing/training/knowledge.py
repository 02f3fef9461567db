# SPDX-License-Identifier: Apache-2.0
"""What a dehazing model knows: how its training tiles look under haze, and how clear held-out tiles
became, as they are and spoilt in known ways."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fieldfare.common.trust.knowledge import Knowledge, Samples, learn

from ...rasters.looks import SIDE
from ...scenes.corruptions import CORRUPTIONS
from ..data.haze import HazeRange, hazy, noise_level
from ..data.pairs import BandOrder
from ..inference.dehazers import Dehazer
from ..inference.familiarity import LAYERS, QUALITY, SIGNS, haze_features, signs_of

AS_IT_IS = "as it is"

WAYS = {AS_IT_IS: lambda image: image} | {
    way: change for way, change in CORRUPTIONS.items() if way not in ("bright", "pale")
}
"""Of spoiling a picture; one that lifts the darkest values makes haze, by the model of it."""

CROP = 192
"""Side in pixels of what is dehazed at a time; a window's neighbours are seen with it."""

MOST_PSNR = 50.0
"""In dB: a clear tile that stays as it is has no end of it."""

LEAST_SAMPLES = 64
"""Windows of held-out tiles, and of others, at least; from fewer nothing is learned."""

Tiles = Sequence[np.ndarray]
"""(H, W, 3) uint8, clear."""


def learn_knowledge(
    dehazer: Dehazer,
    training: Mapping[str, Tiles],
    held_out: Tiles,
    haze: HazeRange,
    order: BandOrder,
    *,
    seed: int,
    told: Callable[[str], None] = lambda line: None,
) -> Knowledge | None:
    """Look at all tiles under haze; dehaze the held-out ones, spoilt in known ways, too.

    What a spoilt tile should become is the clear tile spoilt in the same way.

    Args:
        training: name of a folder -> tiles.
        held_out: not trained on.
        haze, order: that the model was trained with.
        seed: of the hazes.
        told: gets a line on each way of spoiling.

    Returns:
        None where there is too little to learn from.
    """
    if (
        min(_count(held_out, CROP), sum(_count(tiles) for tiles in training.values()))
        < LEAST_SAMPLES
    ):
        return None
    known = {name: [_features(tiles, haze, order, seed)] for name, tiles in training.items()}
    found: list[tuple[np.ndarray, np.ndarray, bool]] = []
    for way, change in WAYS.items():
        for number, tile in enumerate(held_out):
            rng = np.random.default_rng((seed, number))
            clear = tile[:CROP, :CROP]
            drawn = haze.draw(clear.shape[:2], clear.shape[2], rng)
            seen = change(hazy(clear, drawn, rng, noise_level(tile)))
            found.append((*looked_at(dehazer, seen, change(clear)), way == AS_IT_IS))
        values = np.concatenate([quality for _, quality, _ in found[-len(held_out) :]])
        told(f"{way}: {len(values)} windows, {QUALITY} {values.mean():.1f}")
    features = np.concatenate([features for features, _, _ in found])
    quality = np.concatenate([quality for _, quality, _ in found])
    home = np.concatenate([np.full(len(quality), at_home) for _, quality, at_home in found])
    samples = Samples([features], signs_of(features), quality, home)
    return learn(LAYERS, known, samples, signs=SIGNS, quality=QUALITY)


def _count(tiles: Tiles, most: int | None = None) -> int:
    """How many windows lie side by side in tiles, or in their corners of `most` pixels a side."""
    return sum(len(_windows(tile[:most, :most])) for tile in tiles)


def _features(tiles: Tiles, haze: HazeRange, order: BandOrder, seed: int) -> np.ndarray:
    """Of all windows of the tiles, each under a haze or clear as in training, (N, F)."""
    found = []
    for number, tile in enumerate(tiles):
        rng = np.random.default_rng((seed + 1, number))
        shown = order.draw(tile.shape[2], rng)
        drawn = haze.draw(tile.shape[:2], tile.shape[2], rng)
        seen = hazy(tile, drawn, rng, noise_level(tile))[..., shown]
        found += [haze_features(part) for part in _windows(seen)]
    return np.array(found)


def looked_at(
    dehazer: Dehazer, seen: np.ndarray, clear: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, F) of the windows of a crop, and PSNR (N,) of what they became."""
    tile = seen.transpose(2, 0, 1)[None].astype(np.float32) / 255
    became = (dehazer(tile)[0].clip(0, 1) * 255).round().transpose(1, 2, 0)
    features = np.array([haze_features(part) for part in _windows(seen)])
    errors = [
        np.square(mine.astype(np.float64) - true).mean()
        for mine, true in zip(_windows(became, 1), _windows(clear, 1), strict=True)
    ]
    psnr = 20 * np.log10(255) - 10 * np.log10(np.maximum(errors, 1e-9))
    return features, np.minimum(psnr, MOST_PSNR)


def _windows(image: np.ndarray, span: float = 255) -> list[np.ndarray]:
    """(H, W, C) -> its windows side by side, each (C, SIDE, SIDE) over `span`."""
    planes = image.transpose(2, 0, 1) / span
    down, across = (side // SIDE for side in image.shape[:2])
    return [
        planes[:, r * SIDE : (r + 1) * SIDE, c * SIDE : (c + 1) * SIDE]
        for r in range(down)
        for c in range(across)
    ]
