# SPDX-License-Identifier: Apache-2.0
"""Measure a trained model on the test tiles and put it, with these numbers on its card, in place.

    python benchmarks/remote_sensing/release_dehazing.py run/model.safetensors deanet_small \\
        --data "$FIELDFARE_DATA" --training "what was run, where, for how long" --seed 0

Writes NAME.safetensors and NAME.md into the package's weights folder.
"""

import argparse
import dataclasses
import datetime
from pathlib import Path

from dehazing import measure

from fieldfare.common.runtime import set_threads
from fieldfare.common.weights import Metric, load_model_file, save_with_page
from fieldfare.remote_sensing import weights
from fieldfare.remote_sensing.dehazing.evaluation import compare
from fieldfare.remote_sensing.rasters import scores
from fieldfare.remote_sensing.rasters.opening import environment

SEEDS = 3

DATA = (
    "NAIP aerial imagery of five Californian cities (Chico, Claremont, Long Beach, Palm Springs, "
    "Riverside), 481 tiles of 256 x 256 pixels at 0.6 m, red, green, blue, from the urban tree "
    "detection data of Ventura et al. 2024 (Int. J. Applied Earth Observation and Geoinformation "
    "130, 103848); 155 such tiles of OpenAerialMap imagery of Banepa (Nepal, 0.53 m) and Zanzibar "
    "(Tanzania, 0.15 and 0.59 m); under synthetic haze and thin cloud, two fifths left clear"
)
LICENCE = (
    "CC BY 4.0 (USDA NAIP; OpenAerialMap contributors, Banepa; Zanzibar without a statement of its "
    "own); NEON test tiles as in the MIT package deepforest"
)
SPLIT = (
    "every 40th tile of each folder held out for choosing; measured on 40 NAIP tiles of Santa "
    "Monica, 7 NEON tiles at 0.1 m and 22 tiles of Nairobi at 0.3 and 0.6 m, all of other places, "
    f"each under {SEEDS} hazes"
)
LIMITS = (
    "the haze was synthetic, in training and in measuring: real haze and cloud differ, and no real "
    "pair was at hand. Towns, villages and fields from the air in red, green, blue; satellites "
    "were not seen. Of clear imagery at 0.1 m it takes a little light away as if it were hazy. "
    "Under thick cloud nothing is left to restore: what is shown there is a guess. "
    "Cloud shadows stay. Not for measuring reflectance"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("name")
    parser.add_argument("--data", type=Path, required=True, help="Folder with sr and sr_more.")
    parser.add_argument("--training", required=True, help="What was run, in words.")
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    set_threads()
    card, tensors = load_model_file(options.model)
    with environment():
        found = measure([str(options.model)], options.data, SEEDS)
    measured = []
    for title, rows in found.items():
        for row in scores.summarise(rows, tuple(compare.DEFINITIONS)):
            print(title, row)
            label = "model" if row["model"] == options.model.stem else row["model"]
            measured += [
                Metric(f"{title}, {label}, {name}", row[name], compare.DEFINITIONS[name])
                for name in ("psnr", "ssim", "clear", "clear_40")
                if row[name] is not None
            ]
    card = dataclasses.replace(
        card,
        name=options.name,
        summary=(
            f"DEA-Net of {sum(t.numel() for t in tensors.values()):,} parameters in training, "
            "whose last layer gives gain and offset of every pixel."
        ),
        data=DATA,
        data_licence=LICENCE,
        split=SPLIT,
        weights_licence="Apache-2.0",
        training=options.training,
        limits=LIMITS,
        seed=options.seed,
        date=datetime.date.today().isoformat(),
        metrics=tuple(measured),
    )
    folder = Path(weights.__file__).parent
    save_with_page(folder / f"{options.name}.safetensors", tensors, card)


if __name__ == "__main__":
    main()
