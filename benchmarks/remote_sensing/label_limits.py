# SPDX-License-Identifier: Apache-2.0
"""How much of what a model misses is where its labels lie: IoU with labels moved to what is seen.

    OMP_NUM_THREADS=1 python benchmarks/remote_sensing/label_limits.py scenes.csv \\
        --model unetplusplus_lite0_drone [--most 1.5]

Every labelled building is moved, by itself and by at most --most metres along each axis, to where
the model's mask covers it best; then building IoU is counted again, also with all of them moved
alike, by the median of these moves. Where labels lie right this adds about what chance does (see
the scenes that the model was trained on); where they were drawn on other imagery it adds what that
costs. It says nothing of buildings that have no label, or that the model does not see at all.
Chooses nothing.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from fieldfare.common.console import table
from fieldfare.common.runtime import set_threads
from fieldfare.remote_sensing.buildings.data.table import LabelledScene, read_table
from fieldfare.remote_sensing.buildings.inference.predict import Predictor, load_predictor

STRIDE = 32


def predicted(predictor: Predictor, image: np.ndarray) -> np.ndarray:
    """(rows, columns, bands) uint8 -> mask (rows, columns)."""
    rows, columns = image.shape[:2]
    padded = np.pad(image, ((0, -rows % STRIDE), (0, -columns % STRIDE), (0, 0)), mode="edge")
    tile = padded.transpose(2, 0, 1)[None].astype(np.float32) / 255
    found: np.ndarray = predictor(tile, np.zeros((1, 2), np.int64))[0, 0, :rows, :columns] > 0.5
    return found


def moved(instances: np.ndarray, mask: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels each where the mask covers it best, the nearest such place, and the moves (n, 2)."""
    steps = [(y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1)]
    steps.sort(key=lambda step: step[0] ** 2 + step[1] ** 2)
    padded = np.pad(mask, reach)
    result = np.zeros(padded.shape, bool)
    moves = []
    for number in np.unique(instances[instances > 0]):
        rows, columns = (place + reach for place in np.nonzero(instances == number))
        covered = [int(padded[rows + y, columns + x].sum()) for y, x in steps]
        down, right = steps[int(np.argmax(covered))]
        result[rows + down, columns + right] = True
        moves.append((down, right))
    inner = slice(reach, -reach)
    return result[inner, inner], np.array(moves)


def measure(scene: LabelledScene, predictor: Predictor, most: float) -> dict[str, object]:
    """IoU as labelled and with labels moved, on the whole scene at the model's pixel size."""
    window, gsd = scene.window, predictor.config.gsd
    place = (window.row_off, window.col_off, window.height, window.width)
    shape = round(window.height * scene.gsd[1] / gsd), round(window.width * scene.gsd[0] / gsd)
    image, valid = scene.read(*place, shape)
    instances = scene.labels.instances(*place, shape)
    mask = predicted(predictor, image) & valid
    aside, moves = moved(instances, mask, max(1, round(most / gsd)))
    down, right = np.median(moves, axis=0).astype(int)
    alike = ndimage.shift(instances, (down, right), order=0) > 0
    row: dict[str, object] = {"scene": Path(scene.image).stem, "split": scene.split}
    truths = {"iou": instances > 0, "each moved": aside, "moved alike": alike}
    for name, truth in truths.items():
        truth = truth & valid
        row[name] = (mask & truth).sum() / (mask | truth).sum()
    return row | {"buildings": len(moves), "down_m": down * gsd, "right_m": right * gsd}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    parser.add_argument("--model", default="unetplusplus_lite0_drone")
    parser.add_argument("--most", type=float, default=1.5, help="Metres.")
    options = parser.parse_args()
    set_threads()
    predictor = load_predictor(options.model, device="cpu", precision="fp32")
    scenes, _ = read_table(options.table, bands=predictor.config.in_channels)
    with torch.inference_mode():
        print(table([measure(scene, predictor, options.most) for scene in scenes]))


if __name__ == "__main__":
    main()
