# SPDX-License-Identifier: Apache-2.0
"""Write into a dehazing model's file what it knows, and see whether that can be believed.

    python benchmarks/remote_sensing/know_dehazing.py deanet_small out.safetensors \\
        "$FIELDFARE_DATA/sr/train" "$FIELDFARE_DATA/sr_more/train" \\
        --elsewhere "$FIELDFARE_DATA/sr/test/hr" --elsewhere "$FIELDFARE_DATA/sr_more/test/hr"

Learned from the first folders as `rs-dehaze train` does. Then the tiles of other places, each under
a haze or clear, as they are and spoilt in known ways: how many tiles are warned of, how many of the
spoilt ones are warned of or lose at most 1 dB by it, and how expected and real PSNR agree.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy import stats

from fieldfare.common.progress import Progress
from fieldfare.common.runtime import set_threads
from fieldfare.common.trust.knowledge import PART, Knowledge
from fieldfare.common.weights import load_model_file, locate, save_with_page
from fieldfare.remote_sensing.dehazing.data.haze import HazeRange, hazy, noise_level
from fieldfare.remote_sensing.dehazing.data.pairs import BandOrder
from fieldfare.remote_sensing.dehazing.inference.dehazers import NetworkDehazer
from fieldfare.remote_sensing.dehazing.inference.familiarity import signs_of
from fieldfare.remote_sensing.dehazing.networks.model import TASK, load_model
from fieldfare.remote_sensing.dehazing.training.knowledge import (
    AS_IT_IS,
    CROP,
    WAYS,
    learn_knowledge,
    looked_at,
)
from fieldfare.remote_sensing.dehazing.training.run import DataSettings
from fieldfare.remote_sensing.rasters.opening import environment
from fieldfare.remote_sensing.rasters.tiles import read_tiles

LOSS = 1.0
"""In dB, of which nothing need be said."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("output", type=Path)
    parser.add_argument("tiles", type=Path, nargs="+")
    parser.add_argument("--elsewhere", type=Path, action="append", default=[])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    set_threads()
    dehazer = NetworkDehazer(load_model(options.model)[0], device="cpu", precision="fp32")
    every = DataSettings().holdout
    with environment():
        folders = {f"{p.parent.name}/{p.name}": read_tiles(p, 3) for p in options.tiles}
        elsewhere = [tile for path in options.elsewhere for tile in read_tiles(path, 3)]
    knowledge = learn_knowledge(
        dehazer,
        {name: [t for n, t in enumerate(part) if n % every] for name, part in folders.items()},
        [tile for part in folders.values() for tile in part[::every]],
        HazeRange(),
        BandOrder(),
        seed=options.seed,
        told=print,
    )
    if knowledge is None:
        raise SystemExit("too few tiles to learn from")
    print(knowledge.summary())
    card, tensors = load_model_file(locate(options.model, TASK))
    save_with_page(options.output, tensors, card, {PART: knowledge.to_tensors()})
    if elsewhere:
        measure(dehazer, knowledge, elsewhere, options.seed)


def measure(dehazer: NetworkDehazer, knowledge: Knowledge, tiles: list, seed: int) -> None:
    """Print a row a way of spoiling, and the agreement of expected and real PSNR over all."""
    real, expected, plain, right = [], [], [], []
    with Progress("measure", len(WAYS) * len(tiles), unit="tile") as bar:
        for way, change in WAYS.items():
            rows = []
            for number, tile in enumerate(tiles):
                rng = np.random.default_rng((seed, number))
                clear = tile[:CROP, :CROP]
                drawn = HazeRange().draw(clear.shape[:2], clear.shape[2], rng)
                seen = change(hazy(clear, drawn, rng, noise_level(tile)))
                features, psnr = looked_at(dehazer, seen, change(clear))
                judged = knowledge.judge(*knowledge.rows([features], signs_of(features)))
                rows.append((float(psnr.mean()), judged.expected, judged.alarm))
                bar.update(len(real) + len(rows))
            values = np.array(rows, dtype=float)
            real += values[:, 0].tolist()
            expected += values[:, 1].tolist()
            plain = plain or values[:, 0].tolist()
            kept = (values[:, 2] > 0) | (values[:, 0] >= np.array(plain) - LOSS)
            right += kept.tolist() if way != AS_IT_IS else []
            print(
                f"{way:16} PSNR {values[:, 0].mean():5.1f}, expected {values[:, 1].mean():5.1f}; "
                f"warned of {values[:, 2].mean():4.0%}, or no more than {LOSS:g} dB lost "
                f"{kept.mean():4.0%}"
            )
    print(f"{sum(right)} of {len(right)} spoilt tiles warned of or at most {LOSS:g} dB worse")
    print(f"rank correlation of expected and real PSNR: {stats.spearmanr(expected, real)[0]:.2f}")


if __name__ == "__main__":
    main()
