# SPDX-License-Identifier: Apache-2.0
"""What a detector knows: features of its training scenes, and what its F1 was on validation scenes,
as they are and spoilt in known ways."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from torch import Tensor

from fieldfare.common.trust.features import Array
from fieldfare.common.trust.knowledge import PART as KNOWLEDGE
from fieldfare.common.trust.knowledge import Knowledge, Samples, learn

from ...scenes.colours import PART as COLOURS
from ...scenes.colours import learn_colours
from ...scenes.corruptions import CORRUPTIONS, SIZES
from ...scenes.familiarity import blocks_of
from ...scenes.table import LabelledScene
from ..data.objects import Objects
from ..data.patches import read_part
from ..evaluation.matching import pair_points
from ..inference.predict import Predictor
from ..inference.suppression import suppress
from ..inference.tiling import COARSEST
from ..inference.trust import BLOCK, LAYERS, SIGNS, Look, block_numbers
from ..networks.leyolo import LeYOLO

QUALITY = "F1"

AS_IT_IS = "as it is"

LEAST_OBJECTS = 6
"""Objects and detections of a block, together, for its F1 to mean something."""

LEAST_SAMPLES = 16
"""Blocks of validation scenes at least; from fewer nothing is learned."""

MOST_TILES = 100
"""Looked at for each place and way, evenly chosen."""

SIDE = 512
"""Of what is looked at, in pixels of the model; less where a scene is smaller."""

Scenes = Sequence[LabelledScene[Objects]]

Piece = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Image (h, w, 3) uint8, middles (N, 2) of its objects in its pixels, and their classes (N,)."""


def learn_knowledge(
    network: LeYOLO,
    training: Mapping[str, Scenes],
    validation: Mapping[str, Scenes],
    *,
    reach: float,
    told: Callable[[str], None] = lambda line: None,
) -> Knowledge | None:
    """Look at all scenes, at the validation scenes spoilt in known ways too.

    Args:
        network: trained; its config has the chosen threshold.
        training: place -> scenes.
        validation: place -> scenes that it was not trained on.
        reach: metres that a detection's middle may lie from an object's.
        told: gets a line on each way of spoiling.

    Returns:
        None where there is too little to learn from, or the network's bands are not three, which
        the ways of spoiling are for.
    """
    if network.config.in_channels != 3:
        return None
    predictor = Predictor(network, device="cpu", precision="fp32")
    gsd = network.config.gsd

    known = {
        place: looked_at(predictor, _pieces(scenes, gsd, network), reach / gsd)[0]
        for place, scenes in training.items()
    }
    known = {place: parts for place, parts in known.items() if len(parts[0])}
    rows: list[tuple[list[Array], Array, Array, Array]] = []
    for way, pieces in spoilt([s for some in validation.values() for s in some], gsd, network):
        features, signs, f1 = looked_at(predictor, pieces, reach / gsd)
        counted = np.isfinite(f1)
        if not counted.any():
            continue
        told(f"{way}: {counted.sum()} blocks, {QUALITY} {f1[counted].mean():.3f}")
        home = np.full(int(counted.sum()), way == AS_IT_IS)
        kept = [part[counted] for part in features]
        rows.append((kept, signs[counted], f1[counted], home))
    if not rows:
        return None
    samples = Samples(
        [np.concatenate([row[0][place] for row in rows]) for place in range(len(LAYERS))],
        np.concatenate([row[1] for row in rows]),
        np.concatenate([row[2] for row in rows]),
        np.concatenate([row[3] for row in rows]),
    )
    seen = sum(len(parts[0]) for parts in known.values())
    if samples.home.sum() < LEAST_SAMPLES or seen < LEAST_SAMPLES:
        return None
    return learn(LAYERS, known, samples, signs=SIGNS, quality=QUALITY)


def learn_parts(
    network: LeYOLO,
    scenes: Scenes,
    *,
    reach: float,
    told: Callable[[str], None] = lambda line: None,
) -> dict[str, dict[str, Tensor]]:
    """All that a model file holds besides the network; empty where there is too little.

    Args:
        scenes: those of the splits train and val are looked at; areas are the places.
    """
    places: dict[str, dict[str, list[LabelledScene[Objects]]]] = {"train": {}, "val": {}}
    for scene in scenes:
        if scene.split in places:
            places[scene.split].setdefault(scene.area, []).append(scene)
    knowledge = learn_knowledge(network, places["train"], places["val"], reach=reach, told=told)
    if knowledge is None:
        return {}
    told(knowledge.summary())
    parts = {KNOWLEDGE: knowledge.to_tensors()}
    known = [scene for some in places.values() for area in some.values() for scene in area]
    if colours := learn_colours(_pixels(scene, network) for scene in known):
        parts |= {COLOURS: colours.to_tensors()}
    return parts


def _pixels(scene: LabelledScene[Objects], network: LeYOLO) -> np.ndarray:
    """Of a whole scene, (N, 3) in [0, 1]."""
    found = _pieces([scene], network.config.gsd, network)
    return np.concatenate([np.empty((0, 3)), *[each[0].reshape(-1, 3) / 255 for each in found]])


def spoilt(scenes: Scenes, gsd: float, network: LeYOLO) -> Iterator[tuple[str, list[Piece]]]:
    """What was done to scenes, and the pieces; first as they are."""
    pieces = _pieces(scenes, gsd, network)
    yield AS_IT_IS, pieces
    for name, change in CORRUPTIONS.items():
        yield name, [(change(image), middles, kinds) for image, middles, kinds in pieces]
    for factor in SIZES:
        yield f"size {factor:g}", _pieces(scenes, gsd * factor, network)


def _pieces(scenes: Scenes, gsd: float, network: LeYOLO) -> list[Piece]:
    """Squares cut from scenes, side by side, at a ground sampling distance."""
    cuts = []
    for scene in scenes:
        metres = (scene.window.height * scene.gsd[1], scene.window.width * scene.gsd[0])
        side = min(SIDE, *(round(length / gsd) // COARSEST * COARSEST for length in metres))
        down, across = (round(length / gsd) // max(side, 1) for length in metres)
        cuts += [(scene, side, r, c) for r in range(down) for c in range(across) if side]
    found = []
    for scene, side, row, column in cuts[:: max(1, len(cuts) // MOST_TILES)]:
        # Whole pixels, as the tiles of a scene have: a fraction would blur them.
        height, width = (max(1, round(side * gsd / own)) for own in (scene.gsd[1], scene.gsd[0]))
        window = scene.window
        top, left = window.row_off + row * height, window.col_off + column * width
        image, boxes, classes = read_part(
            scene,
            (top, left, height, width),
            gsd,
            classes=network.config.classes,
            point_size=network.config.point_size or 1.0,
        )
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        found.append(((image * 255).round().astype(np.uint8), middles, classes))
    return found


def looked_at(
    predictor: Predictor, pieces: Sequence[Piece], reach: float
) -> tuple[list[Array], Array, Array]:
    """Of each block: features, signs, and F1, NaN where there is next to nothing.

    Args:
        reach: in pixels.
    """
    config, look = predictor.config, Look(predictor)
    features: list[list[Array]] = [[] for _ in LAYERS]
    signs, quality = [np.empty((0, len(SIGNS)))], [np.empty(0)]
    for image, middles, classes in pieces:
        pixels = image.transpose(2, 0, 1)[None].astype(np.float32) / 255
        found = suppress(look(pixels, config.threshold)[0], config.nms)
        parts, more = look.take()
        for layer, part in zip(features, parts, strict=True):
            layer.append(part)
        signs.append(more)
        shape = image.shape[:2]
        blocks = blocks_of(shape, BLOCK)
        right, there, seen = (np.zeros(blocks[0] * blocks[1]) for _ in range(3))
        for kind in np.union1d(found.classes, classes):
            true, mine = middles[classes == kind], found.centres[found.classes == kind]
            own = block_numbers(true, shape, blocks)
            np.add.at(there, own, 1)
            np.add.at(seen, block_numbers(mine, shape, blocks), 1)
            np.add.at(right, own[pair_points(mine, true, reach) >= 0], 1)
        enough = there + seen >= LEAST_OBJECTS
        quality.append(np.where(enough, 2 * right / np.maximum(there + seen, 1), np.nan))
    joined = [np.concatenate(layer) if layer else np.empty((0, 0)) for layer in features]
    return joined, np.concatenate(signs), np.concatenate(quality)
