# SPDX-License-Identifier: Apache-2.0
"""Does `--guard` see attacks and damage? AUROC beside two scores that cost nothing more.

    python benchmarks/remote_sensing/buildings_guard.py --data "$FIELDFARE_DATA" [--model NAME] \\
        [--most 12] [--table train.csv --keep]

Squares of 256 pixels of places that the model was not trained on (--validation: of the one it was
chosen by), clean, attacked (FGSM and PGD against the model's own answer, epsilon 4/255) and spoilt;
of each kind the area under the ROC curve of telling it from the clean ones, by the guard, by the
mean of the larger of p and 1 - p (max-softmax) and by the domain score (expected IoU). Then the
share of clean squares that is flagged. With --table and --keep, guard and colours are learned anew
from its scenes and put into the model's file.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from torch import Tensor

from fieldfare.common.console import table
from fieldfare.common.runtime import set_threads
from fieldfare.common.trust.attacks import fgsm, pgd
from fieldfare.common.trust.guard import PART as GUARD
from fieldfare.common.trust.knowledge import PART as KNOWLEDGE
from fieldfare.common.weights import load_model_file, locate, save_model_file
from fieldfare.common.weights.store import load_part
from fieldfare.remote_sensing.buildings.data.table import read_scene, read_table
from fieldfare.remote_sensing.buildings.inference.guarding import SIDE, augmentations, encoded_by
from fieldfare.remote_sensing.buildings.inference.predict import load_predictor
from fieldfare.remote_sensing.buildings.inference.trust import Look
from fieldfare.remote_sensing.buildings.networks.building_network import BuildingNetwork
from fieldfare.remote_sensing.buildings.networks.models import TASK, load_model
from fieldfare.remote_sensing.buildings.options import DEFAULT_MODEL
from fieldfare.remote_sensing.buildings.training.knowledge import learn_guard, pixels_of
from fieldfare.remote_sensing.buildings.training.run import scene_tiles
from fieldfare.remote_sensing.scenes.colours import PART as COLOURS
from fieldfare.remote_sensing.scenes.colours import learn_colours
from fieldfare.remote_sensing.scenes.corruptions import CORRUPTIONS

EPSILON = 4 / 255
PLACES = ("buildings_more/test/nairobi_b", "buildings/kampala_oam/scene_B_z20")
VALIDATION = ("buildings_more/val/nairobi_a",)
WAYS = ("blur 3", "coarse 4", "JPEG 5", "noise 50", "dark", "pale", "bands exchanged", "inverted")


def pictures_of(data: Path, stems: tuple[str, ...], gsd: float, most: int) -> list[np.ndarray]:
    """Squares (SIDE, SIDE, 3) uint8 of places, evenly spread."""
    found = []
    for stem in stems:
        image = data / f"{stem}.tif"
        labels = image.with_suffix(".geojson")
        labels = labels if labels.exists() else image.parent / "labels.geojson"
        scene, _ = read_scene(image, labels, bands=3)
        for tile, _, known in scene_tiles(scene, gsd):
            found += [
                tile[top : top + SIDE, left : left + SIDE]
                for top in range(0, tile.shape[0] - SIDE + 1, SIDE // 2)
                for left in range(0, tile.shape[1] - SIDE + 1, SIDE // 2)
                if known[top : top + SIDE, left : left + SIDE].mean() > 0.9
            ]
    return found[:: max(1, len(found) // most)][:most]


def attacked(network: BuildingNetwork, picture: Tensor, steps: int) -> Tensor:
    """Moved by at most EPSILON against the network's own answer."""
    with torch.no_grad():
        answer = (network(picture)[:, :1] > 0).float()

    def loss(x: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(network(x)[:, :1], answer)

    if steps == 1:
        return fgsm(loss, picture, EPSILON, 0, 1)
    return pgd(loss, picture, EPSILON, 0, 1, steps=steps)


def area_under(clean: np.ndarray, other: np.ndarray) -> float:
    """Chance that another one scores below a clean one."""
    ranks = rankdata(np.concatenate((clean, other)))[: len(clean)]
    count = len(clean)
    return float((ranks.sum() - count * (count + 1) / 2) / (count * len(other)))


def keep(options: argparse.Namespace) -> None:
    """Learn guard and colours from a table's scenes and put them into the model's file."""
    network, card = load_model(options.model)
    scenes, _ = read_table(options.table, bands=3)
    used = [scene for scene in scenes if scene.split != "test"]
    different = {str(scene.identity): scene for scene in used}.values()
    gsd = network.config.gsd
    held_out = [tile for s in different if s.split == "val" for tile in scene_tiles(s, gsd)]
    guard = learn_guard(network.eval(), held_out)
    colours = learn_colours(pixels_of(scene_tiles(scene, gsd)) for scene in different)
    print(guard, colours, sep="\n")
    path = locate(options.model, TASK)
    _, tensors = load_model_file(path)
    parts = {KNOWLEDGE: load_part(path, KNOWLEDGE)}
    if guard and colours:
        parts |= {GUARD: guard.to_tensors(), COLOURS: colours.to_tensors()}
    save_model_file(path, tensors, card, parts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--most", type=int, default=12)
    parser.add_argument("--validation", action="store_true")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    set_threads()
    if options.keep:
        keep(options)
    predictor = load_predictor(options.model, precision="fp32")
    network, _ = load_model(options.model)
    network.eval().requires_grad_(False)
    guard, knowledge = predictor.guard, predictor.knowledge
    if guard is None or knowledge is None:
        raise SystemExit(f"{options.model}: keeps no guard; give --table and --keep")
    near, look = guard.neighbourhood(encoded_by(predictor), augmentations()), Look(predictor)
    stems = VALIDATION if options.validation else PLACES
    pictures = pictures_of(options.data, stems, network.config.gsd, options.most)

    def scores(x: Tensor) -> list[float]:
        agreement = near.agreements(x)[0].tolist()
        p = look(x.numpy(), np.zeros((1, 2), np.int64))[:, 0]
        rows, _ = knowledge.rows(*look.take())
        expected = float(knowledge.expectation.indices(rows).mean())
        return [*agreement, float(np.maximum(p, 1 - p).mean()), expected]

    def ready(picture: np.ndarray) -> Tensor:
        return torch.from_numpy(picture.transpose(2, 0, 1).copy())[None].float() / 255

    plain = [ready(picture) for picture in pictures]
    kinds = {
        "FGSM": [attacked(network, x, 1) for x in plain],
        "PGD, 10 steps": [attacked(network, x, 10) for x in plain],
        **{way: [ready(CORRUPTIONS[way](p)) for p in pictures] for way in WAYS},
    }
    clean = np.array([scores(x) for x in plain])
    rows = []
    for kind, inputs in kinds.items():
        found = np.array([scores(x) for x in inputs])
        areas = [area_under(a, b) for a, b in zip(clean.T, found.T, strict=True)]
        ranked, (surest, domain) = areas[:-2], areas[-2:]
        row: dict[str, object] = {"kind": kind, "guard": ranked[guard.rank - 1]}
        row |= {"max-softmax": surest, "domain score": domain}
        if options.validation:
            row |= {f"rank {place}": area for place, area in enumerate(ranked, start=1)}
        rows.append(row)
        print(kind, *(f"{area:.3f}" for area in areas), flush=True)
    print(table(rows))
    flagged = guard.flags(clean[:, guard.rank - 1]).mean()
    print(f"{len(clean)} clean squares, {flagged:.1%} flagged")
    print(f"{guard.neighbours + 1} forwards for each")


if __name__ == "__main__":
    main()
