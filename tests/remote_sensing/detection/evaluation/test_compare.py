# SPDX-License-Identifier: Apache-2.0
"""Models and the baseline on labelled scenes, area by area."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from sample_objects import Discs, row, write_orchard, write_table

from fieldfare.common.errors import InputError
from fieldfare.remote_sensing.detection.data.table import read_table
from fieldfare.remote_sensing.detection.evaluation.compare import (
    compare_greenness,
    compare_model,
)
from fieldfare.remote_sensing.detection.evaluation.greenness import Maxima
from fieldfare.remote_sensing.detection.evaluation.reports import table, write_reports
from fieldfare.remote_sensing.detection.inference.run import InferSettings

SETTINGS = InferSettings(model="discs", tile=128, overlap=64)


def two_areas(tmp_path, **more):
    """East is right; in the west one label lies 10 m beside its disc."""
    east = write_orchard(tmp_path, name="east", points=True, **more)
    west = write_orchard(tmp_path, name="west", east=600_000.0, labels="csv")
    lines = west.labels.read_text().splitlines()
    first = lines[1].split(",")
    lines[1] = f"{first[0]},{float(first[1]) + 10 / 0.3},{first[2]}"
    west.labels.write_text("\n".join(lines))
    rows = [row(orchard, "test", area=orchard.image.stem) for orchard in (west, east)]
    return read_table(write_table(tmp_path / "t.csv", *rows), bands=3)[0]


def test_each_area_has_a_row_and_all_together_one(tmp_path):
    scores = compare_model(two_areas(tmp_path), SETTINGS, Discs(), reach=2.0)
    east, west, whole = table([scores])
    assert (east["area"], east["objects"], east["found"], east["f1"]) == ("east", 5, 5, 1.0)
    assert (west["area"], west["precision"], west["recall"]) == ("west", 0.8, 0.8)
    assert (whole["area"], whole["scenes"], whole["f1"]) == ("all", 2, pytest.approx(0.9))
    assert whole["f1_iou50"] is None  # points have no boxes to compare


def test_more_reach_forgives_the_label_that_lies_off(tmp_path):
    scenes = two_areas(tmp_path)
    assert table([compare_model(scenes, SETTINGS, Discs(), reach=11.0)])[-1]["f1"] == 1.0


def test_known_boxes_are_compared_as_boxes_too(tmp_path):
    orchard = write_orchard(tmp_path)
    scenes, _ = read_table(write_table(tmp_path / "t.csv", row(orchard, "test")), bands=3)
    (only,) = table([compare_model(scenes, SETTINGS, Discs(), reach=2.0)])
    assert (only["f1"], only["f1_iou50"]) == (1.0, 1.0)


def test_only_the_window_of_a_row_counts(tmp_path):
    orchard = write_orchard(tmp_path)
    part = row(orchard, "test", window="0 0 96 128")
    scenes, _ = read_table(write_table(tmp_path / "t.csv", part), bands=3)
    (only,) = table([compare_model(scenes, SETTINGS, Discs(), reach=2.0)])
    assert (only["objects"], only["found"], only["f1"]) == (2, 2, 1.0)


def test_a_class_that_the_model_does_not_know_is_refused(tmp_path):
    orchard = write_orchard(tmp_path)
    (tmp_path / "p.csv").write_text("image,x,y,class\norchard.tif,3,4,ship\n")
    rows = row(orchard, "test") | {"labels": tmp_path / "p.csv"}
    scenes, _ = read_table(write_table(tmp_path / "t.csv", rows), bands=3)
    with pytest.raises(InputError, match="class 'ship', the model knows tree"):
        compare_model(scenes, SETTINGS, Discs(), reach=2.0)


def test_the_baseline_is_measured_by_the_same_rules(tmp_path):
    scenes = two_areas(tmp_path)
    own = compare_greenness(scenes, gsd=0.3, reach=2.0, settings=Maxima(1.5, 3.0, 0.1))
    rows = table([own])
    assert rows[-1]["model"] == "greenness"
    assert rows[-1]["f1"] == pytest.approx(0.9)


def test_reports_hold_the_same_rows_their_definitions_and_a_picture(tmp_path):
    scores = compare_model(two_areas(tmp_path), SETTINGS, Discs(), reach=2.0)
    made = write_reports(tmp_path / "out", [scores, scores])
    assert [path.name for path in made] == ["evaluation.csv", "evaluation.json", "evaluation.png"]
    rows = list(csv.DictReader(made[0].open()))
    report = json.loads(made[1].read_text())
    assert len(rows) == len(report["rows"]) == 6
    assert set(report["definitions"]) < set(rows[0])
    picture = np.asarray(Image.open(made[2])).astype(int)
    for colour in ((80, 255, 80), (255, 60, 60), (255, 220, 0)):  # right, wrong, missed
        assert (np.abs(picture - colour).sum(-1) == 0).any()
