# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from fieldfare.remote_sensing.super_resolution.data.reduction import reduce_bicubic
from fieldfare.remote_sensing.super_resolution.evaluation.metrics import (
    DEFINITIONS,
    low_resolution_rmse,
    psnr,
    rounded,
    seam_score,
    ssim,
)


def image(height=32, width=40, seed=0):
    return rounded(np.random.default_rng(seed).random((3, height, width), dtype=np.float32))


def test_psnr_of_a_tenth_off_is_20_db():
    truth = np.full((3, 16, 16), 0.5, np.float32)
    assert psnr(truth + 0.1, truth) == pytest.approx(20, abs=1e-4)


def test_psnr_of_equal_images_is_infinite():
    assert psnr(image(), image()) == float("inf")


def test_borders_do_not_count():
    truth, wrong = image(), image()
    wrong[:, :4] = wrong[:, -4:] = wrong[:, :, :4] = wrong[:, :, -4:] = 0
    assert psnr(wrong, truth) == float("inf")
    assert ssim(wrong, truth) == pytest.approx(1)
    assert psnr(wrong, truth, border=0) < 20


def test_ssim_is_one_for_equal_images_and_falls_with_noise():
    truth = image()
    slightly = np.clip(truth + 0.02 * np.random.default_rng(1).standard_normal(truth.shape), 0, 1)
    assert ssim(truth, truth) == pytest.approx(1)
    assert ssim(image(seed=1), truth) < ssim(slightly.astype(np.float32), truth) < 1


def test_a_result_that_reduces_to_the_input_has_no_low_resolution_error():
    high = image()
    levels = np.rint(high * 255).astype(np.uint8).transpose(1, 2, 0)
    low = reduce_bicubic(levels, 4).transpose(2, 0, 1) / np.float32(255)
    assert low_resolution_rmse(high, low) == pytest.approx(0, abs=1e-4)
    assert low_resolution_rmse(high, low + 3 / 255) == pytest.approx(3, abs=1e-3)


def test_seam_score_is_one_without_seams_and_grows_with_a_step():
    y, x = np.mgrid[:64, :64].astype(np.float32)
    ramp = np.stack([y + x, y - x, 2 * x + y]) / 200
    assert seam_score(ramp, [32], [32]) == pytest.approx(1, abs=1e-3)
    stepped = ramp.copy()
    stepped[:, 32:] += 0.02
    assert seam_score(stepped, [32], []) > 2
    assert seam_score(stepped, [], [32]) == pytest.approx(1, abs=1e-3)
    assert seam_score(ramp, [], []) is None


def test_rounding_clips_to_256_levels():
    levels = rounded(np.array([-1, 0.4999 / 255, 0.5001, 2], np.float32)) * 255
    assert levels.tolist() == [0, 0, 128, 255]


def test_every_measure_is_defined():
    assert set(DEFINITIONS) >= {"psnr", "ssim", "lr_rmse", "seam", "lite0"}
