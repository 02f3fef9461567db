# SPDX-License-Identifier: Apache-2.0
"""Results that, reduced again, are the input."""

from dataclasses import replace

import numpy as np
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_rasters import smooth, write_raster

from fieldfare.remote_sensing.super_resolution.data.reduction import reduce_valid
from fieldfare.remote_sensing.super_resolution.inference.consistency import (
    CONTEXT,
    ProjectedRows,
    project,
)
from fieldfare.remote_sensing.super_resolution.inference.run import InferSettings, infer

FREE = (-np.inf, np.inf)


def textured(bands, height, width, seed=0):
    """White noise, on which a wrong weight shows."""
    return np.random.default_rng(seed).random((bands, height, width), np.float32)


def rough(low):
    return low.repeat(4, -2).repeat(4, -1)


def error(high, low, valid):
    return np.abs(reduce_valid(high, valid, 4) - low)[valid].max()


def test_white_noise_is_met_to_a_thousandth_of_the_error():
    low, valid = textured(2, 40, 33), np.ones((2, 40, 33), bool)
    before, after = (
        error(rough(low), low, valid),
        error(project(rough(low), low, valid, FREE), low, valid),
    )
    assert before > 0.2
    assert after < before / 1000


def test_missing_samples_bind_nothing_and_stay():
    low, valid = textured(1, 40, 33), textured(1, 40, 33, 1) < 0.8
    low[~valid] = np.nan
    high = rough(np.where(valid, low, 0.5))
    found = project(high, low, valid, FREE)
    assert error(found, low, valid) < 0.003
    assert np.array_equal(found[rough(~valid)], high[rough(~valid)])


def test_an_image_that_is_right_stays():
    high = textured(1, 48, 48)
    valid = np.ones((1, 12, 12), bool)
    low = reduce_valid(high, valid, 4)
    assert np.abs(project(high, low, valid, FREE) - high).max() < 1e-5


def test_bounds_hold_and_saturated_inputs_may_lie_beyond():
    truth = (textured(1, 64, 64) > 0.5).astype(np.float32)
    valid = np.ones((1, 16, 16), bool)
    low = reduce_valid(truth, valid, 4).clip(0, 1)
    found = project(truth, low, valid, (0, 1))
    assert np.array_equal(found, truth)
    changed = project(np.full_like(truth, 0.5), low, valid, (0, 1))
    assert changed.min() >= 0
    assert changed.max() <= 1


@settings(max_examples=20, deadline=None)
@given(first=st.integers(0, 90), count=st.integers(1, 30), steps=st.lists(st.integers(1, 40)))
def test_rows_that_come_in_any_pieces_pass_on_as_the_same_bytes(first, count, steps):
    low, valid = textured(1, 120, 9), textured(1, 120, 9, 1) < 0.9
    high = rough(textured(1, 120, 9, 2))
    whole = project(high, low, valid, FREE)
    last = min(first + count, 120)
    passed = []
    rows = ProjectedRows(
        (first, last), (0, 120), FREE, 0, lambda row, block: passed.append((row, block))
    )
    at = rows.first
    assert at == max(0, first - CONTEXT)
    for step in [*steps, 120]:
        until = min(at + step, 120, last + CONTEXT)
        if until > at:
            parts = (high[:, 4 * at : 4 * until], low[:, at:until], valid[:, at:until])
            rows.add(*parts)
        at = until
    assert passed[0][0] == first
    together = np.concatenate([block for _, block in passed], axis=1)
    assert np.array_equal(together, whole[:, 4 * first : 4 * last])


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    dtype=st.sampled_from(["uint8", "uint16", "int16", "float32"]),
    share=st.floats(0, 0.5),
    seed=st.integers(0, 99),
)
def test_the_written_raster_reduced_again_is_the_input(
    tmp_path, tiny_model, height, width, dtype, share, seed
):
    """Clouds, nodata, any size and type; what is left is the rounding of the output."""
    rng = np.random.default_rng(seed)
    values = smooth(3, height, width, 60, 120) + rng.normal(0, 8, (3, height, width))
    values[:, height // 3 : height // 2, width // 4 : width // 2] = 220
    values[dtype != "uint8"] *= 10
    values = np.rint(values).clip(1, None).astype(dtype)
    missing = rng.random((height, width)) < share
    missing.flat[0] = False
    values[:, missing] = 0
    source = write_raster(tmp_path / "in.tif", values, nodata=0)
    chosen = InferSettings(str(tiny_model), tile=16, overlap=4, device="cpu", precision="fp32")
    infer(source, tmp_path / "out.tif", chosen, chosen.restorers())
    with rasterio.open(tmp_path / "out.tif") as found:
        high = found.read().astype(np.float32)
    valid = np.broadcast_to(~missing, values.shape)
    assert error(high, values.astype(np.float32), valid) <= 0.5


def test_the_baseline_is_left_alone_unless_asked(rgb, tmp_path):
    chosen = InferSettings("bicubic", tile=16, overlap=4)
    left, asked = tmp_path / "left.tif", tmp_path / "asked.tif"
    assert not infer(rgb, left, chosen, chosen.restorers())["consistent"]
    chosen = replace(chosen, consistent=True)
    assert infer(rgb, asked, chosen, chosen.restorers())["consistent"]
    with rasterio.open(rgb) as source, rasterio.open(left) as a, rasterio.open(asked) as b:
        low = source.read().astype(np.float32)
        errors = [error(i.read().astype(np.float32), low, low >= 0) for i in (a, b)]
    assert errors[1] < 0.4 < errors[0]
