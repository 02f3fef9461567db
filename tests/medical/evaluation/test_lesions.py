# SPDX-License-Identifier: Apache-2.0
"""Lesion-wise scores: what counts as found, missed and false, and the published sample."""

import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from scipy import optimize

from fieldfare.medical.evaluation import lesions
from fieldfare.medical.evaluation.lesions import LESION_DEFINITIONS, label_lesions, score_lesions

MM = (1.0, 1.0, 1.0)
LABELS = {"wt": (1, 2, 3), "tc": (1, 3), "et": (3,)}

# What brats-evaluation prints for two of its sample cases (github.com/BraTS/BraTS_evaluation,
# example/sample_mets_metrics.json): tp, fp, fn, sq_dsc, sq_hd95.
PUBLISHED = {
    ("00132", "et"): (6, 1, 2, 0.7735988324659234, 2.0748032315081146),
    ("00132", "tc"): (6, 1, 2, 0.7760722559031268, 2.0191614756044163),
    ("00132", "wt"): (6, 1, 1, 0.691078118501733, 2.6587818655763527),
    ("00217", "et"): (27, 7, 7, 0.6708638851808462, 1.6558450102923914),
    ("00217", "tc"): (27, 7, 7, 0.6833786429951106, 1.5258231629016354),
    ("00217", "wt"): (14, 9, 7, 0.6040373568597691, 5.534750590625948),
    ("00630", "et"): (12, 0, 0, 0.8668535333519382, 0.8735004058017974),
    ("00630", "tc"): (12, 0, 0, 0.8788726986237659, 0.843835812062025),
    ("00630", "wt"): (11, 0, 0, 0.8409960686681519, 1.2111588507570894),
}


def boxes(*corners: tuple[int, int, int], size: int = 5, side: int = 40) -> np.ndarray:
    mask = np.zeros((side, side, side), bool)
    for corner in corners:
        mask[tuple(slice(at, at + size) for at in corner)] = True
    return mask


def test_components_join_at_corners():
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 3, 3] = True
    assert label_lesions(mask)[1] == 2


@pytest.mark.parametrize(("case", "region"), PUBLISHED)
def test_one_to_one_gives_the_published_sample_of_brats_evaluation(data: Path, case, region):
    folder = data / "brain" / "brats_mets_labels"
    images = [nib.load(next(folder.glob(f"{kind}_*{case}*"))) for kind in ("pred", "ref")]
    masks = [np.isin(image.dataobj, LABELS[region]) for image in images]
    # The published distances take the spacing in reverse order, seen on the anisotropic case.
    spacing = images[1].header.get_zooms()[2::-1]
    got = score_lesions(*masks, spacing, definition="one_to_one", hd="pooled")
    tp, fp, fn, dsc, hd95 = PUBLISHED[case, region]
    assert (got.found, got.false_positives, got.missed) == (tp, fp, fn)
    assert got.mean.dice == pytest.approx(dsc, abs=1e-9)
    assert got.mean.hd95_mm == pytest.approx(hd95, abs=1e-5)
    assert got.f1 == pytest.approx(2 * tp / (2 * tp + fp + fn))


@pytest.mark.parametrize("definition", ["brats2023", "one_to_one"])
def test_a_perfect_prediction_scores_1_and_0_mm(definition):
    truth = boxes((2, 2, 2), (20, 20, 20))
    got = score_lesions(truth, truth, MM, definition=definition)
    assert got.mean == (1.0, 0.0, 1.0)
    assert (got.found, got.missed, got.false_positives, got.f1) == (2, 0, 0, 1.0)
    assert f"lesions:{definition}" in LESION_DEFINITIONS


def test_brats2023_counts_a_missed_and_a_false_lesion_as_0_and_374_mm():
    truth, predicted = boxes((2, 2, 2), (20, 20, 20)), boxes((2, 2, 2), (2, 30, 30))
    got = score_lesions(predicted, truth, MM)
    assert (got.found, got.missed, got.false_positives) == (1, 1, 1)
    assert got.mean.dice == pytest.approx(1 / 3)
    assert got.mean.hd95_mm == pytest.approx(2 * 374 / 3)


def test_one_to_one_averages_over_pairs_only():
    truth, predicted = boxes((2, 2, 2), (20, 20, 20)), boxes((2, 2, 2), (2, 30, 30))
    got = score_lesions(predicted, truth, MM, definition="one_to_one")
    assert got.mean == (1.0, 0.0, 1.0)
    assert (got.found, got.missed, got.false_positives, got.f1) == (1, 1, 1, 0.5)


def test_brats2023_joins_true_components_whose_dilations_meet():
    # Of six voxels between them each side takes three; of seven one stays free.
    near, far = boxes((2, 2, 2), (13, 2, 2)), boxes((2, 2, 2), (14, 2, 2))
    assert len(score_lesions(near, near, MM).lesions) == 1
    assert len(score_lesions(far, far, MM).lesions) == 2
    assert len(score_lesions(near, near, MM, dilation=1).lesions) == 2


def test_brats2023_gives_a_lesion_all_predicted_pieces_within_its_dilation():
    truth = boxes((10, 10, 10), size=8)
    pieces = boxes((10, 10, 10), size=3) | boxes((15, 15, 15), size=3) | boxes((20, 10, 10), size=2)
    got = score_lesions(pieces, truth, MM)
    whole = 2 * (27 + 27) / (512 + 27 + 27 + 8)
    assert (got.found, got.missed, got.false_positives) == (1, 0, 0)
    assert got.mean.dice == pytest.approx(whole)
    paired = score_lesions(pieces, truth, MM, definition="one_to_one")
    assert (paired.found, paired.false_positives) == (1, 2)
    assert paired.mean.dice == pytest.approx(2 * 27 / (512 + 27))


def test_brats2023_leaves_small_lesions_out_but_lets_them_claim_their_prediction():
    truth = boxes((2, 2, 2)) | boxes((25, 25, 25), size=3)  # 125 and 27 voxels
    missed = score_lesions(boxes((2, 2, 2)), truth, MM)
    assert (missed.found, missed.missed, missed.false_positives) == (1, 0, 0)
    assert score_lesions(truth, truth, MM).false_positives == 0
    # The limit is a volume: the same voxels count where they are larger.
    assert score_lesions(boxes((2, 2, 2)), truth, (1, 1, 2)).missed == 1
    assert score_lesions(boxes((2, 2, 2)), truth, MM, least_mm3=2).missed == 1


def test_one_to_one_takes_the_pairs_of_the_largest_sum():
    truth, predicted = np.zeros((2, 30, 9, 9), bool)
    truth[0:10, 2:6, 2:6] = truth[12:22, 2:6, 2:6] = True
    predicted[8:19, 2:6, 2:6] = True  # most of the second, a little of the first
    predicted[0:7, 2:6, 2:6] = True
    got = score_lesions(predicted, truth, MM, definition="one_to_one")
    assert [lesion.scores.dice for lesion in got.lesions] == pytest.approx([14 / 17, 14 / 21])


@pytest.mark.parametrize(
    ("definition", "empty", "both", "one"),
    [
        ("brats2023", "nan", (np.nan, np.nan), (0.0, 374.0)),
        ("brats2023", "brats", (1.0, 0.0), (0.0, 374.0)),
        ("one_to_one", "nan", (np.nan, np.nan), (0.0, np.nan)),
        ("one_to_one", "brats", (1.0, 0.0), (0.0, 373.0)),
    ],
)
def test_no_lesion_at_all(definition, empty, both, one):
    nothing, something = boxes(), boxes((3, 3, 3))
    for predicted, truth, wanted in (
        (nothing, nothing, both),
        (something, nothing, one),
        (nothing, something, one),
    ):
        got = score_lesions(predicted, truth, MM, definition=definition, empty=empty)
        np.testing.assert_equal(got.mean[:2], wanted)


@given(arrays(bool, (6, 5, 4)), arrays(bool, (6, 5, 4)))
def test_one_to_one_counts_every_component_once(predicted, truth):
    got = score_lesions(predicted, truth, MM, definition="one_to_one")
    assert got.found + got.missed == label_lesions(truth)[1] == len(got.lesions)
    assert got.found + got.false_positives == label_lesions(predicted)[1]


def test_unknown_definitions_and_shapes_are_refused():
    mask = boxes((1, 1, 1))
    with pytest.raises(ValueError, match="brats2023 or one_to_one"):
        score_lesions(mask, mask, MM, definition="brats2019")
    with pytest.raises(ValueError, match="shapes"):
        score_lesions(mask, mask[1:], MM)


def test_pairs_have_the_largest_sum_of_dice_that_one_table_of_all_would_give():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        ours, theirs = rng.random((2, 14, 14, 14)) < 0.03
        predicted, n_predicted = label_lesions(ours | np.roll(theirs, 1, 0))
        true, n_true = label_lesions(theirs)
        sizes = [np.bincount(labels.ravel())[1:] for labels in (true, predicted)]
        overlap = np.zeros((n_true, n_predicted))
        both = (true > 0) & (predicted > 0)
        np.add.at(overlap, (true[both] - 1, predicted[both] - 1), 1)
        dice = 2 * overlap / (sizes[0][:, None] + sizes[1][None])
        best = dice[optimize.linear_sum_assignment(dice, maximize=True)].sum()
        pairs = lesions._best_pairs(true, n_true, predicted, n_predicted)
        assert len(set(pairs.values())) == len(pairs)
        assert sum(dice[i - 1, j - 1] for i, j in pairs.items()) == pytest.approx(best)


def test_thousands_of_components_need_no_table_of_all_pairs():
    ours = np.zeros((40, 40, 40), bool)
    ours[::3, ::3, ::3] = True  # 2,744 single voxels: a table of all pairs has 60 MB
    tracemalloc.start()
    found = score_lesions(ours, ours, MM, definition="one_to_one")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.found, found.missed, found.false_positives) == (2744, 0, 0)
    assert peak < 20e6
