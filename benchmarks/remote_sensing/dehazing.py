# SPDX-License-Identifier: Apache-2.0
"""How well haze comes off test tiles, beside the hazy input and the dark channel prior.

    python benchmarks/remote_sensing/dehazing.py --data "$FIELDFARE_DATA" --csv dehazing.csv

Clear tiles under hazes drawn from seeds, for each test set: PSNR and SSIM of all tiles, then of
those under light, medium and heavy haze (by the PSNR of the input); how little the clear tiles
themselves are changed. With `--held-out` the validation tiles of the training folders are
taken instead, for choosing.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fieldfare.common import console
from fieldfare.common.runtime import set_threads
from fieldfare.remote_sensing.dehazing.evaluation import compare
from fieldfare.remote_sensing.dehazing.inference import dehazers
from fieldfare.remote_sensing.dehazing.options import DEFAULT_MODEL
from fieldfare.remote_sensing.dehazing.training.run import DataSettings
from fieldfare.remote_sensing.rasters import scores
from fieldfare.remote_sensing.rasters.opening import environment

TEST = {
    "NAIP": ("sr/test", "santa_monica*"),
    "NEON": ("sr/test", "neon*"),
    "Nairobi": ("sr_more/test", "*"),
}
HELD_OUT = {"California": ("sr/train", "*"), "Nepal, Zanzibar": ("sr_more/train", "*")}

LIGHT, HEAVY = 18.0, 12.0
"""PSNR of the input in dB above which haze is light, and below which it is heavy."""


def measure(
    models: Sequence[str],
    data: Path,
    seeds: int,
    *,
    held_out: bool = False,
    tile: int = 256,
    overlap: int = 64,
) -> dict[str, list[dict[str, Any]]]:
    """Rows of `compare.evaluate` over all seeds, for each set."""
    contenders: dict[str, dehazers.Dehazer] = {dehazers.DARK_CHANNEL: dehazers.DarkChannelDehazer()}
    contenders |= {Path(m).stem: dehazers.load_dehazer(m, precision="fp32") for m in models}
    found: dict[str, list[dict[str, Any]]] = {}
    for title, (folder, pattern) in (HELD_OUT if held_out else TEST).items():
        pairs = compare.find_pairs(data / folder, pattern)
        if held_out:
            pairs = pairs[:: DataSettings().holdout]
        for seed in range(seeds):
            rows, _ = compare.evaluate(pairs, contenders, seed=seed, tile=tile, overlap=overlap)
            found.setdefault(title, []).extend({"set": title, "seed": seed} | r for r in rows)
    return found


def by_haze(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows by how heavy the haze of their image was."""
    given = {(r["image"], r["seed"]): r["psnr"] for r in rows if r["model"] == compare.INPUT}

    def kind(row: dict[str, Any]) -> str:
        before = given[row["image"], row["seed"]]
        return "light" if before > LIGHT else "heavy" if before < HEAVY else "medium"

    return {name: [r for r in rows if kind(r) == name] for name in ("light", "medium", "heavy")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", default=[DEFAULT_MODEL])
    parser.add_argument("--data", type=Path, required=True, help="Folder with sr and sr_more.")
    parser.add_argument("--seeds", type=int, default=3, help="Hazes over each tile.")
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--overlap", type=int, default=64)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    set_threads()
    with environment():
        found = measure(
            options.model,
            options.data,
            options.seeds,
            held_out=options.held_out,
            tile=options.tile,
            overlap=options.overlap,
        )
    columns = tuple(compare.DEFINITIONS)
    for title, rows in found.items():
        print(f"{title}, {len(rows) // len({r['model'] for r in rows})} hazy tiles")
        print(console.table(scores.summarise(rows, columns)))
        for name, part in by_haze(rows).items():
            if part:
                print(f"  {name} haze")
                print(console.table(scores.summarise(part, ("psnr", "ssim"))))
    if options.csv:
        everything = [row for rows in found.values() for row in rows]
        with open(options.csv, "w", newline="") as file:
            writer = csv.DictWriter(file, everything[0])
            writer.writeheader()
            writer.writerows(everything)


if __name__ == "__main__":
    main()
