# SPDX-License-Identifier: Apache-2.0
"""Sizes of `fieldfare elastic tumours` beside a whole network: cost, time, Dice of each region.

    med-seg phantom -o JUDGE --generator growth --count 24 --val 24 --spacing 2 --seed 41
    fieldfare elastic tumours JUDGE/cases.csv --init reversible_unet_phantom -o run
    python benchmarks/medical/elastic_tumours.py JUDGE --cases 8 reversible_unet_phantom \\
        run/networks/*.safetensors
    python benchmarks/medical/elastic_tumours.py JUDGE --cut --cases 8 reversible_unet_phantom

Operations and processor time of a head, as `infer` lays tiles over it (overlap 0, one thread, the
smallest of several in turn), and mean Dice over the phantoms, of each region and of all. With --cut
the named model is cut itself, one gene after the other to its smallest value, without any training.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from variants import Judge, Settings

from fieldfare.common.budget import latency
from fieldfare.common.budget.collect import operations
from fieldfare.common.console import table
from fieldfare.common.weights import ModelCard, save_model_file
from fieldfare.medical.inference.units import unit
from fieldfare.medical.networks.elastic import elastic_network, sort_channels
from fieldfare.medical.networks.models import TASK, load_model


def cut(model: str, folder: Path) -> dict[str, str]:
    """Files of networks cut out of a model, by what is smallest in them."""
    start, _ = load_model(model)
    net = elastic_network(start.config).eval()
    net.full.load_state_dict(start.state_dict())
    sort_channels(net.full)  # type: ignore[arg-type]
    found = {}
    for gene, values in net.space.genes.items():
        small = net.extract({**net.space.largest(), gene: values[0]})
        path = folder / f"{gene}.safetensors"
        card = ModelCard(gene, TASK, "Cut.", small.config.to_dict())  # type: ignore[union-attr]
        save_model_file(path, small.state_dict(), card)
        found[f"{gene} {values[0]}"] = str(path)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("phantoms", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--cut", action="store_true", help="Cut the one model named.")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = sorted(path for path in options.phantoms.iterdir() if path.is_dir())[: options.cases]
    judge = Judge(cases)
    with tempfile.TemporaryDirectory() as folder:
        models = {Path(name).stem: name for name in options.models}
        if options.cut:
            models |= cut(options.models[0], Path(folder))
        fixed = {"tta": "none", "overlap": 0, "precision": options.precision}
        ways: dict[str, Settings] = {name: {"model": m, **fixed} for name, m in models.items()}
        units = {name: unit(way) for name, way in ways.items()}
        seconds = latency.measure(units, repeats=options.repeats)
        for name, way in ways.items():
            share, scores = judge.share(way), judge.scores(way)
            regions = np.nanmean(scores, axis=0)
            row = {
                "size": name,
                "GMAC a head": round(share * operations(units[name]) / 1e9, 2),
                "seconds": round(share * seconds[name], 2),
                "WT": round(float(regions[0]), 3),
                "TC": round(float(regions[1]), 3),
                "ET": round(float(regions[2]), 3),
                "mean": round(float(np.nanmean(scores)), 3),
            }
            print(table([row]), flush=True)


if __name__ == "__main__":
    main()
