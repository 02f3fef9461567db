# SPDX-License-Identifier: Apache-2.0
"""Pixel metrics: known answers, symmetry, and counts that add up over blocks."""

import math

import numpy as np
import pytest
from scipy import ndimage

from fieldfare.remote_sensing.buildings.evaluation import metrics
from fieldfare.remote_sensing.buildings.evaluation.pixel_tally import tally


def blobs(seed: int, shape: tuple[int, int] = (60, 70)) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndimage.gaussian_filter(noise, 3) > 0.04


def levels_like(truth: np.ndarray, seed: int = 5) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=truth.shape)
    soft = ndimage.gaussian_filter(truth + 0.5 * noise, 1.5)
    return np.rint(np.clip(soft, 0, 1) * 255).astype(np.uint8)


def square(side: int, top: int, left: int, size: int = 20) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_confusion_against_a_hand_count() -> None:
    counted = metrics.confusion(square(4, 2, 2), square(4, 2, 3))
    assert counted == metrics.Confusion(tp=12, fp=4, fn=4, tn=380)
    assert counted.building_iou == 12 / 20
    assert counted.background_iou == 380 / 388
    assert counted.mean_iou == (12 / 20 + 380 / 388) / 2
    assert counted.f1 == counted.precision == counted.recall == 12 / 16
    assert counted.accuracy == 392 / 400


def test_pixels_that_are_not_valid_do_not_count() -> None:
    predicted, truth, valid = blobs(1), blobs(2), blobs(3)
    counted = metrics.confusion(predicted, truth, valid)
    assert counted == metrics.confusion(predicted[valid], truth[valid])
    assert counted.tp + counted.fp + counted.fn + counted.tn == valid.sum()


def test_perfect_is_1_in_every_measure() -> None:
    truth = blobs(1)
    levels = truth.astype(np.uint8) * 255
    all_valid = np.ones_like(truth)
    numbers = tally(truth, truth, all_valid, rho=3, boundary_px=2, levels=levels).numbers()
    assert set(numbers.values()) == {1.0}


def test_no_building_anywhere_is_undefined_but_accurate() -> None:
    empty = np.zeros((9, 9), bool)
    numbers = tally(
        empty, empty, ~empty, rho=3, boundary_px=2, levels=empty.astype(np.uint8)
    ).numbers()
    assert numbers.pop("accuracy") == numbers.pop("background_iou") == 1
    assert all(math.isnan(value) for value in numbers.values())


def test_missing_every_building_is_0() -> None:
    truth = square(4, 2, 2)
    counted = metrics.confusion(np.zeros_like(truth), truth)
    assert counted.building_iou == counted.f1 == counted.recall == 0
    assert math.isnan(counted.precision)


def test_relaxed_takes_a_square_neighbourhood() -> None:
    truth, predicted = np.zeros((2, 21, 21), bool)
    truth[10, 10] = predicted[13, 13] = True  # 3 rows and 3 columns off, 4.2 pixels as crows fly
    assert metrics.relaxed(predicted, truth, 3).precision == 1
    assert metrics.relaxed(predicted, truth, 3).recall == 1
    assert metrics.relaxed(predicted, truth, 2).precision == 0


def test_relaxed_forgives_a_shift_up_to_rho() -> None:
    truth, shifted = square(6, 5, 5), square(6, 8, 5)
    assert metrics.relaxed(shifted, truth, 3).precision == 1
    assert metrics.relaxed(shifted, truth, 2).precision == 5 / 6
    assert metrics.relaxed(shifted, truth, 0).precision == 3 / 6


def test_swapping_prediction_and_truth_swaps_precision_and_recall() -> None:
    one, other = blobs(1), blobs(2)
    forth, back = metrics.relaxed(one, other, 2), metrics.relaxed(other, one, 2)
    assert (forth.precision, forth.recall) == (back.recall, back.precision)
    assert metrics.boundary_iou(one, other, 2) == metrics.boundary_iou(other, one, 2)
    assert metrics.confusion(one, other).mean_iou == metrics.confusion(other, one).mean_iou


def test_boundary_iou_of_a_shift_by_one_pixel() -> None:
    # Rings of 10 x 10 squares, 36 pixels each; they share 9 pixels of the top and of the bottom.
    overlap = metrics.boundary_iou(square(10, 3, 3), square(10, 3, 4), 1)
    assert overlap == metrics.Overlap(18, 54)
    assert metrics.confusion(square(10, 3, 3), square(10, 3, 4)).building_iou > overlap.iou


def test_wide_bands_make_boundary_iou_the_building_iou() -> None:
    one, other = blobs(1), blobs(2)
    everything = metrics.boundary_iou(one, other, 100)
    assert everything.iou == metrics.confusion(one, other).building_iou


@pytest.mark.parametrize("cut", [1, 17, 40])
def test_blocks_with_margins_add_up_to_the_whole(cut: int) -> None:
    predicted, truth, valid = blobs(1), blobs(2), ~blobs(3)
    levels, margin = levels_like(predicted), 3
    settings = {"rho": 3, "boundary_px": 2}
    whole = tally(predicted, truth, valid, levels=levels, **settings)
    parts = []
    for first, last in ((0, cut), (cut, len(truth))):
        start, stop = max(0, first - margin), min(len(truth), last + margin)
        rows = slice(start, stop)
        parts.append(
            tally(
                predicted[rows],
                truth[rows],
                valid[rows],
                levels=levels[rows],
                inner=(slice(first - start, last - start), slice(None)),
                **settings,
            )
        )
    total = parts[0] + parts[1]
    assert total.confusion == whole.confusion
    assert total.relaxed == whole.relaxed
    assert total.boundary == whole.boundary
    assert total.numbers() == whole.numbers()


@pytest.mark.parametrize("rho", [0, 3])
def test_curve_agrees_with_the_mask_where_a_threshold_falls_between_levels(rho: int) -> None:
    truth = blobs(1)
    levels = levels_like(truth)
    precision, recall = metrics.curve(levels, truth, rho, np.ones_like(truth)).precision_recall()
    # 128 / 256 of full scale is level 127.5, so nothing has to be split
    at_half = metrics.relaxed(levels >= 128, truth, rho)
    assert precision[128] == pytest.approx(at_half.precision, abs=1e-12)
    assert recall[128] == pytest.approx(at_half.recall, abs=1e-12)
    assert recall[0] == 1
    assert (np.diff(recall) <= 1e-12).all()


def test_curve_sees_through_the_rounding_of_probabilities() -> None:
    truth = blobs(1, (200, 200))
    noise = np.random.default_rng(7).normal(size=truth.shape)
    probability = np.clip(ndimage.gaussian_filter(truth + 0.5 * noise, 1.5), 0, 1)
    coarse = np.rint(probability * 50).astype(np.uint8)
    curve = metrics.curve(coarse, truth, 0, np.ones_like(truth))
    cuts = np.arange(20, 240)
    exact = [metrics.relaxed(probability >= t / 256, truth, 0).recall for t in cuts]
    plain = [metrics.relaxed(coarse >= 50 * t / 256, truth, 0).recall for t in cuts]
    split = curve.precision_recall(full=50)[1][cuts]
    assert np.abs(split - exact).max() < 0.3 * np.abs(np.subtract(plain, exact)).max()


def test_break_even_is_the_precision_where_both_are_closest() -> None:
    precision = np.array([0.2, 0.6, 0.7, 0.9, math.nan])
    recall = np.array([1.0, 0.8, 0.73, 0.1, 0.0])
    assert metrics.break_even(precision, recall) == 0.7
    assert math.isnan(metrics.break_even(np.array([math.nan, 0.0]), np.array([0.0, 0.0])))


@pytest.mark.parametrize(
    ("name", "strict", "loose"),
    [
        ("Mnih", 0.7642, 0.9264),
        ("Mnih-CRF", 0.7632, 0.9306),
        ("Saito-MA", 0.8074, 0.9524),
        ("Saito-MA-CIS", 0.8090, 0.9526),
        ("Zuo-HF-FCN-ACCV16", 0.8416, 0.9642),
    ],
)
def test_break_even_of_published_curves(data, name: str, strict: float, loose: float) -> None:
    folder = data / "buildings" / "massachusetts_test" / "published_pr"
    for rho, expected in ((0, strict), (3, loose)):
        curve = np.load(folder / f"{name}_pre_rec_ch0_relax_{rho}.npy")
        assert round(metrics.break_even(*curve.T), 4) == expected
