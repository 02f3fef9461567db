# SPDX-License-Identifier: Apache-2.0
"""Dice, HD95 and NSD against what MONAI and MedPy give, and against their own definitions."""

import json
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fieldfare.medical.evaluation import metrics
from fieldfare.medical.evaluation.metrics import EmptyPolicy

LABELS = {"WT": (1, 2, 3, 4), "TC": (1, 3, 4), "ET": (3, 4)}
MASKS = arrays(bool, (5, 4, 6))
SPACINGS = st.tuples(*[st.sampled_from([0.5, 0.859, 1.0, 2.0, 5.5])] * 3)


def cube(*bounds: tuple[int, int], shape: tuple[int, int, int] = (16, 16, 16)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*bound) for bound in bounds)] = True
    return mask


def pairs(data: Path, reference: Path):
    """Every pair of cases.json: name, prediction, truth, spacing, values."""
    cases = json.loads((reference / "medical_metrics" / "cases.json").read_text())
    for case in cases["tiny"]:
        masks = []
        for boxes in (case["pred_boxes"], case["ref_boxes"]):
            mask = np.zeros(case["shape"], bool)
            for box in boxes:
                mask[tuple(slice(*bound) for bound in box)] = True
            masks.append(mask)
        yield case["name"], *masks, case["spacing_mm"], case["values"]
    for case in cases["real"]:
        masks = [
            np.isin(nib.load(data / "brain" / case[which]).dataobj, LABELS[case["region"]])
            for which in ("pred", "ref")
        ]
        yield f"{case['name']} {case['region']}", *masks, case["spacing_mm"], case["values"]


def test_equals_monai_and_medpy_on_every_pair_of_cases_json(data: Path, reference: Path):
    compared = 0
    for name, ours, theirs, spacing, values in pairs(data, reference):
        got = metrics.score(ours, theirs, spacing)
        pooled = metrics.hausdorff95(ours, theirs, spacing, "pooled")
        wanted = {
            "dice": (got.dice, values["dice"]["monai"]),
            "max": (got.hd95_mm, values["hd95"]["monai_max_directed"]),
            "pooled": (pooled, values["hd95"]["medpy_pooled"]),
            "nsd": (got.nsd, values["nsd_1mm"]["monai"]),
        }
        for measure, (value, true) in wanted.items():
            if isinstance(true, str):  # nan, or the error that the other library stops with
                assert math.isnan(value), (name, measure)
            else:
                assert value == pytest.approx(true, abs=1e-4), (name, measure)
                compared += 1
    assert compared == 12 * 4 + 2  # two tiny pairs have an empty mask


def test_a_small_far_island_is_0_mm_pooled_and_0_52_mm_as_the_larger_of_two():
    truth = cube((2, 8), (2, 8), (2, 8))
    island = truth | cube((13, 15), (13, 15), (13, 15))
    assert metrics.hausdorff95(island, truth, (1, 1, 1), "pooled") == 0
    assert metrics.hausdorff95(island, truth, (1, 1, 1)) == pytest.approx(0.5196, abs=1e-4)


@given(MASKS, MASKS, SPACINGS)
def test_both_sides_are_worth_the_same(a, b, spacing):
    for hd in ("max", "pooled"):
        forth = metrics.score(a, b, spacing, hd=hd)
        np.testing.assert_allclose(forth, metrics.score(b, a, spacing, hd=hd))


@given(MASKS, MASKS, st.permutations([0, 1, 2]))
def test_axes_may_change_places_with_their_spacing(a, b, order):
    spacing = (0.5, 1.0, 5.5)
    turned = [spacing[axis] for axis in order]
    expected = metrics.score(a, b, spacing)
    got = metrics.score(a.transpose(order), b.transpose(order), turned)
    np.testing.assert_allclose(got, expected)


@given(MASKS, MASKS, st.integers(0, 3))
def test_empty_space_around_changes_nothing(a, b, width):
    padded = [np.pad(mask, width) for mask in (a, b)]
    np.testing.assert_allclose(
        metrics.score(*padded, (1, 2, 3)), metrics.score(a, b, (1, 2, 3)), equal_nan=True
    )


@given(MASKS, MASKS, SPACINGS)
def test_distances_are_the_brute_force_ones(a, b, spacing):
    def points(mask):
        inner = np.pad(mask, 1)
        for axis in range(3):
            for step in (1, -1):
                inner = inner & np.roll(np.pad(mask, 1), step, axis)
        return np.argwhere(mask & ~inner[1:-1, 1:-1, 1:-1]) * spacing

    first, second = points(a), points(b)
    there, back = metrics.surface_distances(a, b, spacing)
    assert (len(there), len(back)) == (len(first), len(second))
    if len(first) and len(second):
        between = np.linalg.norm(first[:, None] - second[None], axis=-1)
        np.testing.assert_allclose(there, between.min(axis=1))
        np.testing.assert_allclose(back, between.min(axis=0))
    else:
        assert np.isinf([*there, *back]).all()


@given(MASKS, SPACINGS)
def test_a_mask_agrees_with_itself(a, spacing):
    a[0, 0, 0] = True
    assert metrics.score(a, a, spacing) == (1.0, 0.0, 1.0)


def test_nsd_counts_a_distance_equal_to_the_tolerance():
    truth, shifted = cube((4, 10), (4, 10), (4, 10)), cube((6, 12), (4, 10), (4, 10))
    assert metrics.normalised_surface_dice(shifted, truth, (1, 1, 1), 2.0) == 1
    assert metrics.normalised_surface_dice(shifted, truth, (1, 1, 1), 1.99) < 1


@pytest.mark.parametrize(
    ("policy", "both", "one"),
    [
        ("nan", (math.nan, math.nan, math.nan), (0.0, math.nan, 0.0)),
        ("brats", (1.0, 0.0, 1.0), (0.0, 373.0, 0.0)),
    ],
)
def test_empty_masks_are_worth_what_the_policy_says(policy, both, one):
    nothing, something = np.zeros((4, 4, 4), bool), cube((1, 3), (1, 3), (1, 3), shape=(4, 4, 4))
    empty = EmptyPolicy(policy)

    def single(a, b):
        return (
            metrics.dice(a, b, empty=empty),
            metrics.hausdorff95(a, b, (1, 1, 1), empty=empty),
            metrics.normalised_surface_dice(a, b, (1, 1, 1), empty=empty),
        )

    np.testing.assert_equal(single(nothing, nothing), both)
    np.testing.assert_equal(single(nothing, something), one)
    np.testing.assert_equal(single(something, nothing), one)
    assert f"empty:{policy}" in metrics.DEFINITIONS


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"b": np.zeros((4, 4, 5), bool)}, "shapes"),
        ({"spacing": (1, 1)}, "three positive"),
        ({"spacing": (1, 0, 1)}, "three positive"),
        ({"hd": "mean"}, "max or pooled"),
        ({"tolerance_mm": -1.0}, "0 or more"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, words):
    mask = np.ones((4, 4, 4), bool)
    arguments = {"a": mask, "b": mask, "spacing": (1, 1, 1)} | change
    with pytest.raises(ValueError, match=words):
        metrics.score(arguments.pop("a"), arguments.pop("b"), **arguments)
