# SPDX-License-Identifier: Apache-2.0
"""Where the tile grid starts changes the packaged model's result within a stated tolerance."""

import numpy as np
import pytest
import rasterio

from fieldfare.common.windows import plan, reflect_indices, stream
from fieldfare.remote_sensing.super_resolution.evaluation.compare import MARGIN
from fieldfare.remote_sensing.super_resolution.inference.restore import load_restorer, restore_bands
from fieldfare.remote_sensing.super_resolution.options import DEFAULT_MODEL

SAMPLE = "packages/remote_sensing/samples/OSBS_029_20cm.tif"


def restored(low: np.ndarray, shift: int, steps: int) -> np.ndarray:
    """Enlarge with the tile grid moved up and left by some input pixels."""
    tile, restorer = 64, load_restorer(DEFAULT_MODEL, steps=steps, device="cpu", precision="fp32")
    sides = low.shape[1:]
    tiles = plan(
        [side + shift for side in sides], tile, 16, region=[(shift, s + shift) for s in sides]
    )
    result = np.empty((3, *(4 * side for side in sides)), np.float32)

    def read(start):
        rows, columns = (
            reflect_indices(first - shift - MARGIN, first - shift + tile + MARGIN, side)
            for first, side in zip(start, sides, strict=True)
        )
        return low[:, rows[:, None], columns]

    def write(row, block):
        result[:, row : row + block.shape[1]] = block

    def predict(batch, starts):
        return restore_bands(restorer, batch, starts - shift)

    stream(read, predict, write, tiles, channels=3, scale=4, batch=4, blend="hann")
    return np.rint(np.clip(result, 0, 1) * 255)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 2])
def test_shifting_the_tile_grid_changes_little(request, steps):
    with rasterio.open(request.config.rootpath / SAMPLE) as source:
        low = source.read().astype(np.float32)[:, :120, :120] / 255
    first, moved = restored(low, 0, steps), restored(low, 23, steps)
    difference = np.abs(first - moved)
    assert difference.mean() < 1.0
    assert np.quantile(difference, 0.99) < 6
