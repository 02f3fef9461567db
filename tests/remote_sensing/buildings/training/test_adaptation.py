# SPDX-License-Identifier: Apache-2.0
"""Noisy to clean: the terms of the rivals' losses, the run of each method, the report by size."""

import copy
import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import shapely
import torch
from rasterio import Affine
from rasterio.windows import Window
from sample_rasters import smooth, write_raster
from torch.distributions import Bernoulli, kl_divergence

from fieldfare.common.errors import InputError
from fieldfare.common.training import TrainSettings
from fieldfare.remote_sensing.buildings.data.labels import Labels
from fieldfare.remote_sensing.buildings.data.table import LabelledScene
from fieldfare.remote_sensing.buildings.networks.building_network import (
    BuildingNetwork,
    NetworkConfig,
)
from fieldfare.remote_sensing.buildings.training import adaptation
from fieldfare.remote_sensing.buildings.training import run as training
from fieldfare.remote_sensing.buildings.training.adaptation import (
    METHODS,
    AdaptSettings,
    adapt_clean,
    pixel_counts,
    size_report,
)
from fieldfare.remote_sensing.buildings.training.imitation import (
    Distillation,
    MutualLearning,
    Pair,
    softened_divergence,
)
from fieldfare.remote_sensing.buildings.training.run import DataSettings
from fieldfare.remote_sensing.rasters.reading import ValueRange

CONFIG = NetworkConfig(
    architecture="unet", encoder="lcnet_050", decoder_channels=(8, 8, 8, 8, 8), gsd=0.5
)
DATA = DataSettings(patch=32)
SETTINGS = TrainSettings(
    steps=3, batch_size=2, learning_rate=1e-3, ema_decay=0.5, checkpoint_every=1, validate_every=2
)


@pytest.fixture(scope="module")
def noisy() -> BuildingNetwork:
    torch.manual_seed(1)
    return BuildingNetwork(CONFIG).eval()


@pytest.fixture
def scenes(tmp_path: Path) -> list[LabelledScene]:
    """Two halves of a raster with a building each, one for training, one for validation."""
    picture = smooth(3, 80, 160, 20, 230).astype(np.uint8)
    transform = Affine(0.5, 0, 500_000, 0, -0.5, 4_000_000)
    path = write_raster(tmp_path / "picture.tif", picture, transform=transform)
    labels = Labels(np.array([shapely.box(20, 20, 50, 60), shapely.box(100, 30, 140, 50)]))
    return [
        LabelledScene(path, labels, split, split, window, (1, 2, 3), (0.5, 0.5), ValueRange(0, 255))
        for split, window in (("train", Window(0, 0, 80, 80)), ("val", Window(80, 0, 80, 80)))
    ]


def batch(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.rand(2, 3, 64, 64, generator=generator),
        "truth": (torch.rand(2, 2, 64, 64, generator=generator) > 0.5).float(),
        "weight": (torch.rand(2, 64, 64, generator=generator) > 0.2).float(),
    }


def same(one: BuildingNetwork, other: BuildingNetwork) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def run(noisy, scenes, folder, method="finetune", **changes) -> BuildingNetwork:
    settings = dataclasses.replace(SETTINGS, **changes)
    return adapt_clean(noisy, scenes, AdaptSettings(method), settings, DATA, folder, quiet=True)


class TestSoftenedDivergence:
    def logits(self) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(3)
        own, target = torch.randn(2, 2, 9, 9, generator=generator, dtype=torch.float64) * 4
        return own, target

    def test_at_temperature_1_is_the_plain_kl_divergence_of_the_known_pixels(self):
        own, target = self.logits()
        weight = (torch.arange(162).reshape(2, 9, 9) % 3 > 0).double()
        plain = kl_divergence(Bernoulli(logits=target), Bernoulli(logits=own))
        expected = plain[weight > 0].mean()
        value = softened_divergence(1.0)(own, target, weight)
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)

    def test_grows_into_the_squared_difference_of_logits_over_8(self):
        own, target = self.logits()
        value = softened_divergence(300.0)(own, target, torch.ones(2, 9, 9))
        torch.testing.assert_close(value, ((own - target) ** 2 / 8).mean(), rtol=1e-3, atol=0)

    @pytest.mark.parametrize("temperature", [1.0, 3.0])
    def test_is_least_at_the_target_which_gets_no_gradient(self, temperature):
        _, target = self.logits()
        own = target.clone().requires_grad_()
        target.requires_grad_()
        value = softened_divergence(temperature)(own, target, torch.ones(2, 9, 9))
        value.backward()
        assert value.item() == pytest.approx(0, abs=1e-6)
        assert own.grad.abs().max() < 1e-6
        assert target.grad is None


class TestLosses:
    def test_mutual_learning_treats_both_networks_alike(self, noisy):
        torch.manual_seed(2)
        other = BuildingNetwork(CONFIG)
        objective = MutualLearning(DATA.supervision(CONFIG))
        values, gradients = [], []
        for first, second in ((noisy, other), (other, noisy)):
            pair = Pair(copy.deepcopy(first), copy.deepcopy(second)).train()
            value = objective(pair, batch())
            value.backward()
            values.append(value.detach())
            halves = [pair.first, pair.second]
            gradients.append([half.segmentation_head[0].weight.grad for half in halves])
        torch.testing.assert_close(*values)
        for there, back in zip(gradients[0], reversed(gradients[1]), strict=True):
            torch.testing.assert_close(there, back)

    def test_mutual_learning_of_twins_adds_nothing_to_the_labels(self, noisy):
        supervision = DATA.supervision(CONFIG)
        pair = Pair(copy.deepcopy(noisy), copy.deepcopy(noisy)).train()
        value = MutualLearning(supervision)(pair, batch())
        maps = copy.deepcopy(noisy).train()(batch()["image"])
        alone = supervision(maps, batch()["truth"], batch()["weight"])
        torch.testing.assert_close(value, 2 * alone)

    def test_share_of_the_teacher_is_between_labels_and_imitation(self, noisy):
        torch.manual_seed(2)
        student = BuildingNetwork(CONFIG).train()
        supervision = DATA.supervision(CONFIG)

        def value(share: float, seen: dict[str, torch.Tensor]) -> torch.Tensor:
            objective = Distillation(
                copy.deepcopy(noisy),
                supervision,
                CONFIG.outputs,
                temperature=2.0,
                teacher_weight=share,
                precision="fp32",
            )
            return objective(student, seen).detach()

        flipped = batch() | {"truth": 1 - batch()["truth"]}
        labels, imitation = value(0.0, batch()), value(1.0, batch())
        torch.testing.assert_close(value(0.25, batch()), 0.75 * labels + 0.25 * imitation)
        torch.testing.assert_close(value(1.0, flipped), imitation)
        maps = student(batch()["image"])
        torch.testing.assert_close(labels, supervision(maps, batch()["truth"], batch()["weight"]))


class TestAdaptClean:
    @pytest.mark.parametrize("method", METHODS)
    def test_begins_where_the_method_says_and_leaves_the_noisy_network_alone(
        self, method, noisy, scenes, tmp_path
    ):
        before = copy.deepcopy(noisy)
        found = run(noisy, scenes, tmp_path / "run", method, steps=1, learning_rate=1e-9)
        assert same(noisy, before)
        assert all(p.requires_grad for p in noisy.parameters())
        moved = [
            (a - b).abs().max() for a, b in zip(found.parameters(), noisy.parameters(), strict=True)
        ]
        assert (max(moved) < 1e-6) == (method != "distillation")
        assert found.config == CONFIG
        assert not found.training

    @pytest.mark.parametrize("method", METHODS)
    def test_interrupted_run_ends_with_the_same_weights(
        self, method, noisy, scenes, tmp_path, monkeypatch
    ):
        whole = run(noisy, scenes, tmp_path / "whole", method)

        def stop(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(training.Validation, "__call__", stop)
            with pytest.raises(KeyboardInterrupt):
                run(noisy, scenes, tmp_path / "parts", method)
        resumed = run(noisy, scenes, tmp_path / "parts", method)

        assert same(resumed, whole)
        assert not same(resumed, noisy)

    def test_student_may_be_another_network_with_fewer_maps(self, noisy, scenes, tmp_path):
        student = dataclasses.replace(
            CONFIG, architecture="lraspp", encoder="mobilenetv3", outputs=("building",)
        )
        settings = dataclasses.replace(SETTINGS, steps=1)
        how = AdaptSettings("distillation", student)
        found = adapt_clean(noisy, scenes, how, settings, DATA, tmp_path / "run", quiet=True)
        assert found.config == student

    def test_run_of_another_teacher_is_not_resumed(self, noisy, scenes, tmp_path):
        run(noisy, scenes, tmp_path / "run", "distillation", steps=1)
        other = BuildingNetwork(CONFIG)
        with pytest.raises(InputError, match="other settings"):
            run(other, scenes, tmp_path / "run", "distillation", steps=1)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"gsd": 0.3}, "gsd is 0.3"),
            ({"in_channels": 4}, "in_channels is 4"),
            ({"outputs": ("building", "roof")}, "no roof"),
        ],
    )
    def test_student_that_does_not_fit_is_refused(self, changes, words, noisy, tmp_path):
        student = dataclasses.replace(CONFIG, **changes)
        with pytest.raises(InputError, match=words):
            adapt_clean(noisy, [], AdaptSettings("distillation", student), SETTINGS, DATA, tmp_path)

    @pytest.mark.parametrize(
        "changes",
        [
            {"method": "guess"},
            {"temperature": 0},
            {"teacher_weight": 1.5},
            {"method": "mutual", "student": CONFIG},
        ],
    )
    def test_impossible_settings_are_refused(self, changes):
        with pytest.raises(InputError):
            AdaptSettings(**changes)


class TestSizeReport:
    def test_counts_of_the_bins_add_up_to_the_whole(self):
        rng = np.random.default_rng(0)
        truth = np.kron(rng.integers(0, 9, (12, 10)), np.ones((5, 5), int))
        seen = rng.random(truth.shape) < 0.4
        built = truth > 0
        count = pixel_counts(seen, truth, 0.7)
        assert count.sum(axis=0).tolist() == [
            (seen & built).sum(),
            (~seen & built).sum(),
            (seen & ~built).sum(),
        ]
        assert (count.sum(axis=1) > 0).sum() > 1

    def test_pixels_count_with_the_nearest_building(self):
        truth = np.zeros((40, 60), int)
        truth[2:6, 2:6] = 7  # 16 m2
        truth[2:6, 12:16] = 3  # 16 m2, half of it seen
        truth[20:30, 5:13] = 9  # 80 m2, two columns too many
        seen = (truth == 7) | (truth == 9)
        seen[2:6, 12:14] = True
        seen[20:30, 13:15] = True
        seen[20:40, 20:33] = True  # nearest to the building of 80 m2
        count = pixel_counts(seen, truth, 1.0)
        assert count.tolist() == [[24, 8, 0], [0] * 3, [80, 0, 20 + 260], [0] * 3, [0] * 3]

    def test_ground_without_buildings_counts_regions_by_their_own_size(self):
        seen = np.zeros((20, 20), bool)
        seen[:5, :6] = True
        count = pixel_counts(seen, np.zeros((20, 20), int), 1.0)
        assert count.tolist() == [[0] * 3, [0, 0, 30], [0] * 3, [0] * 3, [0] * 3]

    def test_rows_hold_both_networks_and_the_truth_scores_1(self, noisy, scenes, monkeypatch):
        other = copy.deepcopy(noisy)

        def predicted(network, scene):
            place = (scene.window.row_off, scene.window.col_off, 80, 80)
            truth = scene.labels.instances(*place, (80, 80)) > 0
            return (truth if network is other else ~truth), np.ones_like(truth)

        monkeypatch.setattr(adaptation, "predicted_mask", predicted)
        rows = size_report(noisy, other, scenes)
        assert [row["size_m2"] for row in rows] == [
            "0-25", "25-50", "50-100", "100-200", "200+", "all"
        ]  # fmt: skip
        assert [row["buildings"] for row in rows] == [0, 0, 0, 0, 2, 2]  # 200 and 300 m2
        for row in rows[-2:]:
            assert (row["recall_before"], row["f1_before"], row["iou_before"]) == (0, 0, 0)
            assert (row["recall_after"], row["f1_after"], row["iou_after"]) == (1, 1, 1)
        assert math.isnan(rows[0]["recall_after"])

    def test_missing_pixels_and_specks_do_not_count(self, noisy, scenes, monkeypatch):
        def predicted(network, scene):
            seen = np.zeros((80, 80), bool)
            seen[20:60, 20:40] = True  # the part of the building that holds data
            seen[0, 0] = seen[30, 70] = True  # a speck of 0.25 m2, and one without data
            valid = np.ones((80, 80), bool)
            valid[:, 40:] = False
            return seen, valid

        monkeypatch.setattr(adaptation, "predicted_mask", predicted)
        last = size_report(noisy, noisy, scenes[:1])[-1]
        assert (last["recall_after"], last["f1_after"]) == (1, 1)
        assert last["iou_after"] == 800 / 801
