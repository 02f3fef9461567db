# SPDX-License-Identifier: Apache-2.0
"""What a building model knows: features and colours of its training scenes, what its IoU was where,
and how its answers hold on validation scenes that are slightly changed."""

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fieldfare.common.trust.features import Array
from fieldfare.common.trust.guard import PART as GUARD
from fieldfare.common.trust.guard import Guard, fit_guard
from fieldfare.common.trust.knowledge import PART as KNOWLEDGE
from fieldfare.common.trust.knowledge import Knowledge, Samples, learn

from ...scenes.colours import PART as COLOURS
from ...scenes.colours import learn_colours
from ...scenes.corruptions import CORRUPTIONS, SIZES
from ..data.sensors import pixel_of
from ..data.table import LabelledScene
from ..inference.guarding import RANK, SIDE, augmentations, encoded_by
from ..inference.predict import Predictor, chosen_for, predictor_of
from ..inference.trust import BLOCK, LAYERS, SIGNS, Look
from ..networks.building_network import BuildingNetwork
from .run import scene_tiles

QUALITY = "building IoU"

LEAST_BUILDING = 0.03
"""Share of a block that must be building, in truth or prediction, for its IoU to mean something."""

LEAST_SAMPLES = 16
"""Blocks of validation scenes at least; from fewer nothing is learned."""

LEAST_SQUARES = 16
"""Of validation scenes, for a guard."""

STRIDE, MOST_CUTS = 160, 8
"""Pixels from one cut of a scene to the next, and how many are looked at for each place and way."""

Tile = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Image (h, w, bands) uint8, building and known (h, w) bool."""


def learn_knowledge(
    network: BuildingNetwork,
    training: Mapping[str, Sequence[LabelledScene]],
    validation: Mapping[str, Sequence[LabelledScene]],
    home: Collection[str],
    *,
    told: Callable[[str], None] = lambda line: None,
) -> Knowledge | None:
    """Look at all scenes, at the validation scenes spoilt in known ways too.

    Args:
        network: trained; of three bands, as the ways of spoiling are for those. Of one with experts
            each looks at the places of its own pixel size, and what is learned holds for all.
        training: place -> scenes.
        validation: place -> scenes that it was not trained on.
        home: places of `validation` of which no warning is wanted.
        told: gets a line on each validation place.

    Returns:
        None where there is too little to learn from.
    """
    if not home:
        return None
    predictor = predictor_of(network, device="cpu")
    gsd = network.config.gsd

    def of(scenes: Sequence[LabelledScene]) -> Predictor:
        return chosen_for(predictor, (pixel_of(scenes[0]),) * 2)[0]

    known = {
        place: _looked(of(scenes), [t for s in scenes for t in scene_tiles(s, gsd)])[0]
        for place, scenes in training.items()
    }
    known = {place: parts for place, parts in known.items() if len(parts[0])}
    features: list[list[Array]] = [[] for _ in LAYERS]
    signs, quality, at_home = [], [], []
    for place, way, tiles in _spoilt(validation, gsd):
        parts, more, iou = _looked(of(validation[place]), tiles)
        counted = np.isfinite(iou)
        if not counted.any():
            continue
        told(f"{place}, {way}: {counted.sum()} blocks, {QUALITY} {iou[counted].mean():.3f}")
        for layer, part in zip(features, parts, strict=True):
            layer.append(part[counted])
        signs.append(more[counted])
        quality.append(iou[counted])
        at_home.append(np.full(int(counted.sum()), way == "as it is" and place in home))
    if not signs:
        return None
    samples = Samples(
        [np.concatenate(layer) for layer in features],
        np.concatenate(signs),
        np.concatenate(quality),
        np.concatenate(at_home),
    )
    seen = sum(len(parts[0]) for parts in known.values())
    if samples.home.sum() < LEAST_SAMPLES or seen < 8:
        return None
    return learn(LAYERS, known, samples, signs=SIGNS, quality=QUALITY)


def learn_parts(
    network: BuildingNetwork,
    training: Mapping[str, Sequence[LabelledScene]],
    validation: Mapping[str, Sequence[LabelledScene]],
    *,
    told: Callable[[str], None] = lambda line: None,
) -> dict[str, dict[str, Tensor]]:
    """All that a model file holds besides the network; empty where there is too little.

    Args:
        network: trained.
        training, validation: place -> scenes; all of `validation` are of the model's own kind. Of
            a network with experts the scenes of a place are of one expert's pixel size, and there
            is no guard, as its answers would be those of one expert.
    """
    if network.config.in_channels != 3:
        return {}
    knowledge = learn_knowledge(network, training, validation, set(validation), told=told)
    if knowledge is None:
        return {}
    told(knowledge.summary())
    gsd = network.config.gsd
    scenes = [*_listed(training), *_listed(validation)]
    colours = learn_colours(pixels_of(scene_tiles(scene, gsd)) for scene in scenes)
    tiles = [t for s in _listed(validation) for t in scene_tiles(s, gsd)]
    guard = None if network.config.experts else learn_guard(network, tiles)
    parts = {KNOWLEDGE: knowledge.to_tensors()}
    if colours is not None:
        parts |= {COLOURS: colours.to_tensors()}
    if guard is not None:
        parts |= {GUARD: guard.to_tensors()}
    return parts


def learn_guard(network: BuildingNetwork, tiles: Sequence[Tile]) -> Guard | None:
    """From squares of validation tiles; None where there are fewer than LEAST_SQUARES."""
    cut = [
        image[top : top + SIDE, left : left + SIDE].transpose(2, 0, 1).astype(np.float32) / 255
        for image, _, known in tiles
        for top in _starts(image.shape[0])
        for left in _starts(image.shape[1])
        if known[top : top + SIDE, left : left + SIDE].mean() > 0.9
    ]
    if len(cut) < LEAST_SQUARES:
        return None
    encode = encoded_by(Predictor(network, device="cpu"))
    clean = [torch.from_numpy(picture)[None] for picture in cut]
    return fit_guard(encode, augmentations(), clean, rank=RANK)


def _listed(places: Mapping[str, Sequence[LabelledScene]]) -> list[LabelledScene]:
    return [scene for scenes in places.values() for scene in scenes]


def _starts(length: int) -> list[int]:
    """Where squares begin that overlap and reach both ends."""
    if length < SIDE:
        return []
    count = math.ceil((length - SIDE) / STRIDE) + 1
    found: list[int] = np.linspace(0, length - SIDE, count).round().astype(int).tolist()
    return found


def pixels_of(tiles: Sequence[Tile]) -> np.ndarray:
    """Known pixels of tiles, (N, 3) in [0, 1]."""
    found = [image[known] for image, _, known in tiles]
    return np.concatenate([np.empty((0, 3)), *found]) / 255


def _spoilt(
    places: Mapping[str, Sequence[LabelledScene]], gsd: float
) -> Sequence[tuple[str, str, list[Tile]]]:
    """(place, what was done, tiles)."""
    found = []
    for place, scenes in places.items():
        tiles = [tile for scene in scenes for tile in scene_tiles(scene, gsd)]
        found.append((place, "as it is", tiles))
        for name, change in CORRUPTIONS.items():
            found.append((place, name, [(change(i), t, k) for i, t, k in tiles]))
        for factor in SIZES:
            wrong = [tile for scene in scenes for tile in scene_tiles(scene, gsd * factor)]
            found.append((place, f"size {factor:g}", wrong))
    return found


def _looked(predictor: Predictor, tiles: Sequence[Tile]) -> tuple[list[Array], Array, Array]:
    """Of each block of tiles: features, signs, and IoU, NaN where there is no building."""
    features: list[list[Array]] = [[] for _ in LAYERS]
    signs, quality = [np.empty((0, len(SIGNS)))], [np.empty(0)]
    look = Look(predictor)
    cuts = [(tile, cut) for tile in tiles for cut in _cuts(tile[1].shape)]
    for (image, truth, known), cut in cuts[:: max(1, len(cuts) // MOST_CUTS)]:
        pixels = image[cut].transpose(2, 0, 1)[None].astype(np.float32) / 255
        found = look(pixels, np.zeros((1, 2), np.int64))[0, 0] > 0.5
        parts, more = look.take()
        kept = _share(known[cut]) > 0.9
        for layer, part in zip(features, parts, strict=True):
            layer.append(part[kept])
        signs.append(more[kept])
        quality.append(_iou(found & known[cut], truth[cut] & known[cut])[kept])
    joined = [np.concatenate(layer) if layer else np.empty((0, 0)) for layer in features]
    return joined, np.concatenate(signs), np.concatenate(quality)


def _cuts(shape: tuple[int, ...]) -> list[tuple[slice, slice]]:
    """Squares of two blocks, or one in a small tile, that overlap and reach all its borders."""
    side = min(2 * BLOCK, *(length - length % BLOCK for length in shape))
    if not side:
        return []
    starts = [
        np.linspace(0, length - side, math.ceil((length - side) / STRIDE) + 1).round().astype(int)
        for length in shape
    ]
    return [
        np.s_[top : top + side, left : left + side]
        for top, left in itertools.product(*(places.tolist() for places in starts))
    ]


def _share(mask: np.ndarray) -> np.ndarray:
    """Of each block, row by row."""
    count = mask.shape[0] // BLOCK
    found: np.ndarray = mask.reshape(count, BLOCK, count, BLOCK).mean(axis=(1, 3)).ravel()
    return found


def _iou(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    both, either = _share(found & truth), _share(found | truth)
    return np.where(either >= LEAST_BUILDING, both / np.maximum(either, 1e-9), np.nan)
