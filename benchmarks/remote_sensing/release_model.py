# SPDX-License-Identifier: Apache-2.0
"""Measure a trained model on the test split and put it, with these numbers on its card, in place.

    python benchmarks/remote_sensing/release_model.py run/model.safetensors ediffsr_small_x4 \\
        --data "$FIELDFARE_DATA/sr" --training "what was run, where, for how long" --seed 1

Writes NAME.safetensors and NAME.md into the package's weights folder.
"""

import argparse
import dataclasses
import datetime
from pathlib import Path

from fieldfare.common.runtime import set_threads
from fieldfare.common.trust.knowledge import PART
from fieldfare.common.weights import Metric, load_model_file, save_with_page
from fieldfare.common.weights.store import load_part
from fieldfare.remote_sensing import weights
from fieldfare.remote_sensing.super_resolution.evaluation import compare as evaluation
from fieldfare.remote_sensing.super_resolution.evaluation import metrics
from fieldfare.remote_sensing.super_resolution.inference import looks, restore

SETS = {"NAIP": "santa_monica*", "NEON": "neon*"}

DATA = (
    "NAIP aerial imagery of five Californian cities (Chico, Claremont, Long Beach, Palm Springs, "
    "Riverside), 481 tiles of 256 x 256 pixels at 0.6 m, red, green, blue, from the urban tree "
    "detection data of Ventura et al. 2024 (Int. J. Applied Earth Observation and Geoinformation "
    "130, 103848); 155 such tiles of OpenAerialMap imagery of Banepa (Nepal, 0.53 m) and Zanzibar "
    "(Tanzania, 0.15 and 0.59 m). Inputs made by Pillow's bicubic filter, half of them degraded at "
    "random: blur to 1 pixel, four filters, noise to 6 levels of 255, unsharp mask to 2, JPEG from "
    "quality 40"
)
LICENCE = (
    "CC BY 4.0 (USDA NAIP; OpenAerialMap contributors, Banepa; Zanzibar without a statement of its "
    "own); NEON test tiles as in the MIT package deepforest"
)
SPLIT = (
    "every 40th tile of each folder held out for choosing; measured on 40 NAIP tiles of Santa "
    "Monica (another city) and 7 NEON tiles at 0.1 m, used for neither, with results consistent "
    "with the input"
)
LIMITS = (
    "towns, villages and fields from the air in red, green, blue; satellites were not seen, nor "
    "stronger blur, noise, sharpening or compression than named. Detail is plausible, not "
    "measured: do not count or identify small objects by it"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("name")
    parser.add_argument("--data", type=Path, required=True, help="Folder with test/hr, test/lr_x4.")
    parser.add_argument("--training", required=True, help="What was run, in words.")
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    set_threads()
    card, tensors = load_model_file(options.model)
    default = int(card.config["default_steps"])
    contenders: dict[str, restore.Restorer] = {restore.BICUBIC: restore.BicubicRestorer()}
    for steps in sorted({1, default}):
        label = f"{steps} step{'s' * (steps > 1)}"
        contenders[label] = restore.load_restorer(str(options.model), steps=steps, precision="fp32")
    measured = []
    for title, pattern in SETS.items():
        pairs = evaluation.find_pairs(options.data / "test", restore.BICUBIC_SCALE, pattern)
        rows, _ = evaluation.evaluate(pairs, contenders)
        for row in evaluation.summarise(rows):
            print(title, len(pairs), row)
            measured += [
                Metric(f"{title}, {row['model']}, {name}", row[name], metrics.DEFINITIONS[name])
                for name in ("psnr", "ssim", "lite0")
            ]
    card = dataclasses.replace(
        card,
        name=options.name,
        summary=(
            f"EDiffSR x4 of {sum(t.numel() for t in tensors.values()):,} parameters; one step for "
            f"the best PSNR, {default} by default for detail."
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
    parts = {part: load_part(options.model, part) for part in (PART, looks.PART)}
    save_with_page(folder / f"{options.name}.safetensors", tensors, card, parts)


if __name__ == "__main__":
    main()
