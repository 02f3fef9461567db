# SPDX-License-Identifier: Apache-2.0
"""Which encoder? U-Net++ on each family, trained for the same processor time on the same scenes.

    python benchmarks/remote_sensing/encoders.py train.csv -o encoders/ \\
        --budget 600 --seeds 3 [--encoder lite0 --encoder efficientmod_xxs] \\
        [--starts starts/ | --scratch]

The table is that of places.py. How many steps an encoder gets is what --budget seconds of processor
time hold (timed on --timed steps of its own), so that a slow one gets fewer. lite0 starts from
ImageNet weights, which no package has for the others: they start from random ones; with --scratch
lite0 does, too. After each run a row is added to OUTPUT/encoders.csv: building IoU on the scenes of
the splits val and test, time and memory of a 512 x 512 tile. The same command again does only what
is missing; a run that was interrupted goes on.
"""

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from fieldfare.common import efficiency
from fieldfare.common.console import table
from fieldfare.common.files import atomic_path
from fieldfare.common.runtime import set_threads
from fieldfare.common.training import DrawSampler, TrainSettings
from fieldfare.remote_sensing.buildings.commands.encoders import config_of
from fieldfare.remote_sensing.buildings.data.table import LabelledScene, read_table
from fieldfare.remote_sensing.buildings.inference.predict import Predictor
from fieldfare.remote_sensing.buildings.networks.building_network import (
    BuildingNetwork,
    NetworkConfig,
)
from fieldfare.remote_sensing.buildings.networks.encoders import FAMILIES
from fieldfare.remote_sensing.buildings.training.run import DataSettings, Validation, train

FILE = "encoders.csv"
GSD = 0.3


def seconds_of_a_step(
    config: NetworkConfig, scenes: list[LabelledScene], data: DataSettings, batch: int, count: int
) -> float:
    """Processor time of one step, the mean of some after the first, data and optimiser included."""
    torch.manual_seed(0)
    network = BuildingNetwork(config).train()
    network.to(memory_format=torch.channels_last)
    dataset, objective = data.patches(scenes, config), data.objective(config)
    optimiser = torch.optim.AdamW(network.parameters())
    order = DrawSampler(len(dataset), batch, seed=0, first=0, last=count + 1, rank=0, world=1)
    begun = 0.0
    for number, samples in enumerate(DataLoader(dataset, batch_sampler=order)):
        objective(network, samples).backward()
        optimiser.step()
        optimiser.zero_grad()
        if number == 0:
            begun = time.process_time()
    return (time.process_time() - begun) / count


def read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def one(
    encoder: str, seed: int, scenes: list[LabelledScene], options: argparse.Namespace
) -> dict[str, str]:
    """Train one network and measure it."""
    config = config_of(encoder)
    config = NetworkConfig(**{**vars(config), "gsd": GSD})
    data = DataSettings(patch=options.patch)
    folder = options.output / f"{encoder}_{seed}"
    kept = folder / "steps.txt"
    if kept.exists():  # a resumed run keeps its schedule
        steps = int(kept.read_text())
    else:
        second = seconds_of_a_step(config, scenes, data, options.batch, options.timed)
        steps = max(1, round(options.budget / second))
        folder.mkdir(parents=True, exist_ok=True)
        kept.write_text(str(steps))
    start = "none"
    if encoder == "lite0" and not options.scratch:
        start = "imagenet"
    elif options.starts and (taught := options.starts / f"{encoder}.safetensors").exists():
        start = str(taught)
    known = start != "none"
    settings = TrainSettings(
        steps=steps,
        batch_size=options.batch,
        learning_rate=1e-3,
        warmup_steps=min(50, steps // 10),
        weight_decay=1e-2,
        rate_factors=(("encoder.", 0.1),) if known else (),
        clip_norm=1.0,
        ema_decay=0.995,
        seed=seed,
        checkpoint_every=max(1, min(200, steps // 5)),
        log_every=max(1, min(20, steps // 5)),
        validate_every=steps,
    )
    network = train(config, scenes, settings, data, folder, encoder_weights=start).eval()
    begun = "taught" if start.endswith(".safetensors") else start
    row = {"encoder": encoder, "seed": str(seed), "start": begun, "steps": str(steps)}
    with torch.inference_mode():
        for split in ("val", "test"):
            held_out = [scene for scene in scenes if scene.split == split]
            found = Validation(held_out, GSD)(network) if held_out else {}
            row[f"{split} iou"] = f"{found['iou']:.4f}" if found else ""
    predictor = Predictor(network, device="cpu", precision="fp32")
    tile = np.random.default_rng(0).random((1, 3, 512, 512), dtype=np.float32)
    timing = efficiency.bench(predictor, tile, np.zeros((1, 2), np.int64), repeats=3)
    cost = efficiency.cost(network, tile.shape)
    row["seconds"] = f"{timing.median_s:.3f}"
    row["peak_mb"] = "" if timing.peak_bytes is None else f"{timing.peak_bytes / 2**20:.0f}"
    row |= {"parameters": str(cost.parameters), "gmacs": f"{cost.macs / 1e9:.2f}"}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--budget", type=float, default=600, help="Processor seconds of a run.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--encoder", action="append", help="By default one of each family.")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--patch", type=int, default=192)
    parser.add_argument("--timed", type=int, default=4)
    parser.add_argument("--starts", type=Path, help="Folder of first weights.")
    parser.add_argument("--scratch", action="store_true")
    options = parser.parse_args()
    set_threads()
    options.output.mkdir(parents=True, exist_ok=True)
    scenes, _ = read_table(options.table, bands=3)
    path = options.output / FILE
    rows = read_rows(path)
    for seed in range(options.seeds):
        for encoder in options.encoder or FAMILIES.values():
            if any(row["encoder"] == encoder and row["seed"] == str(seed) for row in rows):
                continue
            rows.append(one(encoder, seed, scenes, options))
            write_rows(path, rows)
    print(table(list(rows)))
    means = []
    for encoder in dict.fromkeys(row["encoder"] for row in rows):
        own = [float(row["val iou"]) for row in rows if row["encoder"] == encoder]
        means.append(
            {"encoder": encoder, "seeds": len(own), "mean": np.mean(own), "range": np.ptp(own)}
        )
    print(table(sorted(means, key=lambda row: -float(row["mean"]))))


if __name__ == "__main__":
    main()
