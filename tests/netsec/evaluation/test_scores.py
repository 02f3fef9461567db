# SPDX-License-Identifier: Apache-2.0
"""Scores against scikit-learn and against numbers done by hand; the pictures of them."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fieldfare.common.errors import InputError
from fieldfare.netsec.evaluation import pictures
from fieldfare.netsec.evaluation.scores import reliability, score

NAMES = ("A", "B", "C", "D")
numbers = arrays(np.int64, st.shared(st.integers(1, 40), key="n"), elements=st.integers(0, 3))


@given(truth=numbers, chosen=numbers)
def test_scores_are_those_of_scikit_learn(truth, chosen):
    metrics = pytest.importorskip("sklearn.metrics")
    found = score(truth, chosen, NAMES)
    present = np.unique(truth)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = metrics.precision_recall_fscore_support(
            truth, chosen, labels=range(4), zero_division=0
        )
        macro = metrics.f1_score(truth, chosen, labels=present, average="macro", zero_division=0)
    for mine, wanted in zip(
        (found.precision, found.recall, found.f1, found.support), theirs, strict=True
    ):
        np.testing.assert_allclose(mine, wanted)
    assert found.macro_f1 == pytest.approx(macro)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(truth, chosen))
    confusion = metrics.confusion_matrix(truth, chosen, labels=range(4))
    np.testing.assert_array_equal(found.confusion, confusion)


def test_macro_f1_is_over_the_classes_in_the_truth():
    found = score(np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1]), NAMES)
    assert found.macro_f1 == pytest.approx((2 / 3 + 1) / 2)
    assert [row["class"] for row in found.rows()] == ["A", "B", "C"]
    assert found.reliability is None


def test_summaries_are_plain_values():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), 30)
    found = score(rng.integers(0, 4, 30), probabilities, NAMES).summary()
    assert json.loads(json.dumps(found)) == found
    assert found["flows"] == 30


def test_calibration_error_by_hand():
    confidence = np.array([0.95, 0.95, 0.65, 0.65, 0.6])
    probabilities = np.column_stack([confidence, 1 - confidence])
    found = reliability(np.array([0, 1, 0, 0, 0]), probabilities, bins=10)
    assert found.count.tolist() == [0] * 5 + [1, 0 + 2, 0, 0, 2]
    assert found.accuracy[[5, 6, 9]].tolist() == [1, 1, 0.5]
    assert np.isnan(found.accuracy[0])
    assert found.error == pytest.approx((2 * 0.45 + 2 * 0.35 + 0.4) / 5)


def test_sure_and_right_is_calibrated():
    assert reliability(np.array([0, 1, 2]), np.eye(3)).error == 0
    assert reliability(np.array([1, 2, 0]), np.eye(3)).error == 1


@pytest.mark.parametrize(
    ("truth", "predicted"),
    [([], []), ([0], [0, 1]), ([4], [0]), ([0], [-1]), ([0], [[0.5, 0.5]])],
)
def test_what_does_not_belong_together_is_refused(truth, predicted):
    with pytest.raises(ValueError, match="class"):
        score(np.array(truth, int), np.array(predicted), NAMES)


def test_pictures_are_written_whatever_the_names(tmp_path):
    rng = np.random.default_rng(0)
    names = ("A$x_$", "B<&>", "_C", "D")
    found = score(rng.integers(0, 3, 40), rng.dirichlet(np.ones(4), 40), names)
    curve = [{"packets": k, "macro_f1": 0.1 * k, "accuracy": 0.2} for k in (1, 2, 5)]
    drawn = {
        "confusion.png": pictures.draw_confusion(found, "test $a"),
        "reliability.svg": pictures.draw_reliability(found.reliability),
        "packets.png": pictures.draw_first_packets({"_x$y": curve, "trees": curve}),
    }
    for name, figure in drawn.items():
        pictures.save(figure, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 3000
    with pytest.raises(InputError, match=r"x\.jpg"):
        pictures.save(drawn["packets.png"], tmp_path / "x.jpg")


def test_the_confusion_picture_holds_every_count():
    truth, chosen = np.array([0, 0, 1, 3]), np.array([0, 1, 1, 3])
    axes = pictures.draw_confusion(score(truth, chosen, NAMES)).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["A (2)", "B (1)", "D (1)"]
    counts = {text.get_position(): text.get_text() for text in axes.texts}
    assert counts == {(0, 0): "1", (1, 0): "1", (1, 1): "1", (2, 2): "1"}
