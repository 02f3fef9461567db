# SPDX-License-Identifier: Apache-2.0
"""One building network with experts for two pixel sizes, beside two networks and one for both.

    python benchmarks/remote_sensing/experts.py {train,val,test,attack} train.csv -o experts/ \\
        --data "$FIELDFARE_DATA" [--seeds 0 1 2]

The table is that of places.py: drone imagery of about 0.15 m per pixel. The coarse side is made of
it, no labelled aerial imagery being at hand: blurred by a Gaussian of 0.45 m, noise of 15 levels a
pixel, averaged to 0.6 m (3.75 levels are left of the noise). Contenders, all U-Net++ on lite0 at
0.3 m per pixel, of equal multiply-accumulates a tile, from the same weights:

    experts     one network, layers of its own for each size, all steps on both
    dense       one network, all steps on both
    separate    two networks, half of the steps each, on one size each

so each sees as many patches of either size, and `experts` and `separate` each cost what `dense`
does. `train` trains them, and goes on after an interruption; `val` and `test` measure what is
trained, by what `infer` finds on Nairobi A, and on Nairobi B and Kampala B, as they are and made
coarse; `attack` asks what small changes of Nairobi A's pixels do (projected gradient, 2/255, five
steps). What is measured is not measured again.
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from torch import Tensor

from fieldfare.common.console import table
from fieldfare.common.experts.adversarial import Answer, Attack, evade
from fieldfare.common.files import write_text
from fieldfare.common.runtime import set_threads
from fieldfare.common.training import TrainSettings
from fieldfare.common.weights import ModelCard, save_model_file
from fieldfare.remote_sensing.buildings.commands.evaluate_scene import run_models
from fieldfare.remote_sensing.buildings.data.table import LabelledScene, read_table
from fieldfare.remote_sensing.buildings.evaluation.reports import table as rows_of
from fieldfare.remote_sensing.buildings.networks.building_network import (
    BuildingNetwork,
    NetworkConfig,
    expert_of,
)
from fieldfare.remote_sensing.buildings.networks.models import TASK, load_any, load_model
from fieldfare.remote_sensing.buildings.options import EvalOptions
from fieldfare.remote_sensing.buildings.training.run import DataSettings, scene_tiles, train
from fieldfare.remote_sensing.scenes.corruptions import CORRUPTIONS
from fieldfare.remote_sensing.scenes.ground import ground_size

FINE, COARSE = 0.15, 0.6
SIZES = {"0.15 m": FINE, "0.6 m": COARSE}
CONTENDERS = {"experts": ("both",), "dense": ("both",), "separate": tuple(SIZES)}
"""On which scenes each network of a contender is trained."""

START = "unetplusplus_lite0_drone"
PLACES = {
    "val": {
        "Nairobi A": ("buildings_more/val/nairobi_a.tif", "buildings_more/val/nairobi_a.geojson")
    },
    "test": {
        "Nairobi B": ("buildings_more/test/nairobi_b.tif", "buildings_more/test/nairobi_b.geojson"),
        "Kampala B": (
            "buildings/kampala_oam/scene_B_z20.tif",
            "buildings/kampala_oam/labels.geojson",
        ),
    },
}
ATTACK = Attack(epsilon=2 / 255, step=0.5 / 255, steps=5)


def averaged(values: np.ndarray, factor: int) -> np.ndarray:
    """(h, w, c) -> (h // factor, w // factor, c), float."""
    height, width = (side // factor for side in values.shape[:2])
    cut = values[: height * factor, : width * factor]
    found: np.ndarray = cut.reshape(height, factor, width, factor, -1).mean(axis=(1, 3))
    return found


def made_coarse(source: Path, folder: Path) -> Path:
    """A raster as a sensor of 0.6 m might have seen it; written once."""
    target = folder / f"{source.stem}_coarse.tif"
    if target.exists():
        return target
    with rasterio.open(source) as dataset:
        picture = dataset.read((1, 2, 3)).transpose(1, 2, 0)
        known = dataset.dataset_mask()[..., None]
        first = max(1, round(FINE / ground_size(dataset)[0]))  # type: ignore[index]
        factor = round(COARSE / FINE)
        place = {"crs": dataset.crs}
        place["transform"] = dataset.transform * rasterio.Affine.scale(first * factor)
    picture = averaged(picture, first).round().astype(np.uint8)
    picture = CORRUPTIONS["noise 15"](CORRUPTIONS["blur 3"](picture))
    small = averaged(picture, factor).round().astype(np.uint8)
    mask = averaged(averaged(known, first), factor)[..., 0] > 127
    size = {"height": small.shape[0], "width": small.shape[1], "count": 3, "dtype": "uint8"}
    with rasterio.open(target, "w", driver="GTiff", photometric="RGB", **size, **place) as sink:
        sink.write(small.transpose(2, 0, 1))
        if not mask.all():
            sink.write_mask(mask)
    return target


def training_scenes(listing: Path, folder: Path) -> dict[str, list[LabelledScene]]:
    """The scenes of the split train by pixel size, and all of them as `both`."""
    with open(listing, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    found = {}
    for name, size in SIZES.items():
        target = folder / f"train_{size:g}.csv"
        with open(target, "w", newline="") as file:
            writer = csv.DictWriter(file, ("image", "labels", "split", "area"))
            writer.writeheader()
            for row in rows:
                image, labels = ((listing.parent / row[n]).resolve() for n in ("image", "labels"))
                image = made_coarse(image, folder) if size == COARSE else image
                writer.writerow(
                    {"image": image, "labels": labels, "split": "train", "area": row["area"]}
                )
        found[name] = read_table(target, bands=3)[0]
    return found | {"both": [scene for scenes in found.values() for scene in scenes]}


def trained(
    name: str, on: str, seed: int, scenes: list[LabelledScene], options: argparse.Namespace
) -> Path:
    """The file of one network, trained unless it is there."""
    folder = options.output / options.start / f"{name}_{on.replace(' ', '')}_{seed}"
    target: Path = folder / "model.safetensors"
    if target.exists():
        return target
    packaged = options.start == "packaged"
    network, _ = load_model(START)
    config, start = network.config, network.state_dict() if packaged else None
    if name == "experts":
        config = NetworkConfig.from_dict(config.to_dict() | {"experts": tuple(SIZES.values())})
    steps = options.steps if on == "both" else options.steps // 2
    settings = TrainSettings(
        steps=steps,
        batch_size=options.batch,
        learning_rate=3e-4 if packaged else 1e-3,
        warmup_steps=min(20, steps // 10),
        weight_decay=1e-2,
        rate_factors=() if packaged else (("encoder.", 0.1),),
        clip_norm=1.0,
        ema_decay=0.98,
        seed=seed,
        checkpoint_every=25,
        log_every=25,
        validate_every=steps,
    )
    data = DataSettings(patch=options.patch)
    print(f"{name} on {on}, seed {seed}", flush=True)
    found = train(
        config, scenes, settings, data, folder, start=start, encoder_weights="imagenet", quiet=True
    )
    card = ModelCard(f"{name} {on}", TASK, "A run of experts.py.", config.to_dict(), seed=seed)
    save_model_file(target, found.state_dict(), card)
    (folder / "checkpoint.pt").unlink()
    return target


def models_of(options: argparse.Namespace, name: str, seed: int) -> dict[str, Path]:
    """Pixel size -> the file that a contender takes for it; empty where it is not trained."""
    if name == "as packaged":
        return dict.fromkeys(SIZES, Path(START))
    found = {}
    for size in SIZES:
        on = "both" if CONTENDERS[name] == ("both",) else size.replace(" ", "")
        found[size] = options.output / options.start / f"{name}_{on}_{seed}" / "model.safetensors"
    return found if all(path.exists() for path in found.values()) else {}


def measured(model: Path, image: Path, labels: Path) -> dict[str, float]:
    """Building IoU on the raster's own pixels and F1 of outlines, as `rs-buildings eval` says."""
    asked = EvalOptions(scene=image, models=(str(model),), quiet=True, precision="fp32")
    rows = {row["set"]: row for row in rows_of(run_models(image, labels, asked, {}))}
    return {
        "iou": rows["pixels"]["building_iou"],
        "f1": rows["regularised"]["object_f1"],
    }


def kept(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def report(options: argparse.Namespace, places: dict[str, tuple[str, str]], file: str) -> None:
    """Measure what is not measured yet; print means over seeds and their ranges."""
    path = options.output / options.start / file
    path.parent.mkdir(parents=True, exist_ok=True)
    scores, lines = kept(path), []
    for name in ("as packaged", *CONTENDERS):
        there = [seed for seed in options.seeds if models_of(options, name, seed)]
        there = there[:1] if name == "as packaged" else there
        line: dict[str, object] = {"network": name, "seeds": len(there)}
        for place, (image, labels) in places.items():
            for size, metres in SIZES.items():
                found = []
                for seed in there:
                    key = f"{name}, {place}, {size}, {seed}"
                    if key not in scores:
                        source = options.data / image
                        if metres == COARSE:
                            source = made_coarse(source, options.output)
                        model = models_of(options, name, seed)[size]
                        scores[key] = measured(model, source, options.data / labels)
                        write_text(path, json.dumps(scores, indent=1))
                    found.append(scores[key])
                for measure in ("iou", "f1"):
                    line[f"{place} {size} {measure}"] = spoken([row[measure] for row in found])
        lines.append(line)
    print(table(lines))


def spoken(values: list[float]) -> str:
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def attacked(options: argparse.Namespace) -> None:
    """Building IoU at 0.3 m per pixel on squares of Nairobi A, clean and under PGD, of the two
    that are one network."""
    image, labels = (options.data / part for part in PLACES["val"]["Nairobi A"])
    lines = []
    for name in ("experts", "dense"):
        for size, metres in SIZES.items():
            models = models_of(options, name, options.seeds[0])
            if not models:
                continue
            source = made_coarse(image, options.output) if metres == COARSE else image
            listing = options.output / "attack.csv"
            write_text(listing, f"image,labels,split\n{source.resolve()},{labels},val\n")
            (scene,), _ = read_table(listing, bands=3)
            network = dense_of(models[size], metres)
            clean, moved = under_attack(network, scene, seed=0)
            lines.append({"network": name, "size": size, "clean": clean, "attacked": moved})
    print(table(lines))


def dense_of(path: Path, size: float) -> BuildingNetwork:
    """The network that runs on imagery of a pixel size."""
    network, _ = load_any(str(path))
    return network.dense(expert_of(network.config, size)) if network.config.experts else network


def under_attack(network: BuildingNetwork, scene: LabelledScene, *, seed: int) -> tuple[float, ...]:
    """Building IoU of every other square before and after: every pixel is an input with two
    classes, and there is no route to move."""
    torch.manual_seed(seed)
    network.eval().requires_grad_(False)

    def run(pixels: Tensor) -> Answer:
        logits = network(pixels)[:, 0].flatten()
        return Answer(torch.stack((-logits, logits), dim=-1) / 2, logits.new_zeros(1, 1))

    both, either = np.zeros(2), np.zeros(2)
    for picture, truth, known in scene_tiles(scene, network.config.gsd):
        for top in range(0, truth.shape[0] - 255, 256):
            for left in range(0, truth.shape[1] - 255, 256):
                if (top + left) // 256 % 2:
                    continue
                cut = np.s_[top : top + 256, left : left + 256]
                clean = torch.from_numpy(picture[cut].transpose(2, 0, 1).copy())[None] / 255
                moved, _ = evade(run, clean, run(clean), ATTACK)
                for place, pixels in enumerate((clean, moved)):
                    found = (network(pixels)[0, 0] > 0).numpy() & known[cut]
                    true = truth[cut] & known[cut]
                    both[place] += (found & true).sum()
                    either[place] += (found | true).sum()
    return tuple(float(value) for value in both / either)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("train", "val", "test", "attack"))
    parser.add_argument("table", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--start", choices=("packaged", "imagenet"), default="packaged")
    parser.add_argument("--steps", type=int, default=240, help="Of a contender in all.")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--patch", type=int, default=192)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    set_threads()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.what == "attack":
        attacked(options)
    elif options.what in PLACES:
        report(options, PLACES[options.what], f"{options.what}.json")
    else:
        scenes = training_scenes(options.table, options.output)
        for seed in options.seeds:
            for name, sets in CONTENDERS.items():
                for on in sets:
                    trained(name, on, seed, scenes[on], options)


if __name__ == "__main__":
    main()
