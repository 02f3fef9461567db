# SPDX-License-Identifier: Apache-2.0
"""The training run: it learns, resumes exactly, and measures what it does not learn from."""

import math

import numpy as np
import pytest
import torch
from sample_objects import GSD, RADIUS, row, write_orchard, write_table

from fieldfare.common.errors import InputError
from fieldfare.common.training import TrainSettings
from fieldfare.remote_sensing.detection.data.table import read_table
from fieldfare.remote_sensing.detection.networks.leyolo import DetectorConfig
from fieldfare.remote_sensing.detection.training import validation as validating
from fieldfare.remote_sensing.detection.training.run import DataSettings, train
from fieldfare.remote_sensing.detection.training.validation import Part, Validation

CONFIG = DetectorConfig(classes=("tree",), width=0.125, gsd=GSD, point_size=2 * RADIUS * GSD)
DATA = DataSettings(patch=96, point_size=2 * RADIUS * GSD, reach=2.0)


def scenes(tmp_path, *, val=True):
    rows = []
    splits = ("train", "val") if val else ("train",)
    for number, split in enumerate(splits):
        rng = np.random.default_rng(number)
        middles = rng.permutation(np.mgrid[20:220:40, 20:150:40].reshape(2, -1).T)[:12] + 0.0
        orchard = write_orchard(
            tmp_path, name=split, middles=middles, east=500_000 + 1000 * number, points=True
        )
        rows.append(row(orchard, split))
    return read_table(write_table(tmp_path / "t.csv", *rows), bands=3)[0]


def settings(steps, **more):
    every = {"checkpoint_every": 1000, "log_every": 10, "validate_every": 1000}
    return TrainSettings(
        steps=steps, batch_size=4, learning_rate=5e-3, ema_decay=0.9, **every | more
    )


@pytest.mark.slow
def test_it_learns_to_find_the_discs_of_a_scene_it_has_not_seen(tmp_path):
    network, validation = train(
        CONFIG, scenes(tmp_path), settings(150), DATA, tmp_path / "run", quiet=True
    )
    choice = validation.choose(network)
    assert choice.f1 > 0.9


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path, monkeypatch):
    labelled = scenes(tmp_path, val=False)
    whole, _ = train(CONFIG, labelled, settings(4), DATA, tmp_path / "whole", quiet=True)
    from fieldfare.remote_sensing.detection.training import losses

    real, calls = losses.detection_loss, []

    def breaking(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError
        return real(*arguments)

    monkeypatch.setattr(losses, "detection_loss", breaking)
    often = settings(4, checkpoint_every=1)
    with pytest.raises(RuntimeError):
        train(CONFIG, labelled, often, DATA, tmp_path / "run", quiet=True)
    again, _ = train(CONFIG, labelled, often, DATA, tmp_path / "run", quiet=True)
    assert len(calls) == 5  # the fourth step once more, and no other
    pairs = zip(whole.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_run_with_other_data_is_not_resumed(tmp_path):
    labelled = scenes(tmp_path, val=False)
    train(CONFIG, labelled, settings(1), DATA, tmp_path / "run", quiet=True)
    other = DataSettings(patch=64, point_size=3.0)
    with pytest.raises(InputError, match="other settings"):
        train(CONFIG, labelled, settings(1), other, tmp_path / "run", quiet=True)


def test_without_a_training_scene_there_is_nothing_to_learn(tmp_path):
    labelled = [scene for scene in scenes(tmp_path) if scene.split == "val"]
    with pytest.raises(InputError, match="no scene in the split train"):
        train(CONFIG, labelled, settings(1), DATA, tmp_path / "run", quiet=True)


class Sure(torch.nn.Module):
    """Sees an object in each cell of stride 8 that a place lies in."""

    def __init__(self, places):
        super().__init__()
        self.config, self.places = CONFIG, places
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image):
        sides = [(image.shape[-2] // s, image.shape[-1] // s) for s in (8, 16, 32)]
        maps = [torch.full((1, 65, *side), -20.0) for side in sides]
        maps[0][:, :64] = 0
        for number, (x, y) in enumerate(self.places):
            maps[0][0, -1, int(y // 8), int(x // 8)] = 3.0 - 0.2 * number
        return maps


def test_a_large_scene_is_looked_at_piece_by_piece_and_no_object_is_lost(tmp_path, monkeypatch):
    val = [scene for scene in scenes(tmp_path) if scene.split == "val"]
    monkeypatch.setattr(validating, "SIDE", 96)
    validation = Validation(val, CONFIG, point_size=6.0, reach=2.0)
    assert [part.image.shape for part in validation.parts] == [(3, 80, 75)] * 6
    assert sum(len(part.boxes) for part in validation.parts) == 12
    pixels = np.stack([part.image for part in validation.parts]).astype(int)
    assert ((pixels[:, 2] < 60).any((1, 2))).all()


def test_where_nothing_is_and_nothing_is_found_there_is_no_f1(tmp_path):
    val = [scene for scene in scenes(tmp_path) if scene.split == "val"]
    validation = Validation(val, CONFIG, point_size=6.0, reach=2.0)
    empty = [Part(part.image, part.boxes[:0], part.classes[:0]) for part in validation.parts]
    validation.parts = empty
    choice = validation.choose(Sure([]), (0.9,))
    assert math.isnan(choice.f1)


def test_validation_finds_the_threshold_that_parts_right_from_wrong(tmp_path):
    val = [scene for scene in scenes(tmp_path) if scene.split == "val"]
    validation = Validation(val, CONFIG, point_size=6.0, reach=2.0)
    places = [*val[0].labels.centres, (4.0, 150.0), (100.0, 4.0)]  # the last two are no discs
    choice = validation.choose(Sure(places), (0.9,))
    assert choice.f1 == 1.0
    scores = torch.sigmoid(3.0 - 0.2 * torch.arange(14))
    assert scores[12] < choice.threshold <= scores[11]
