# SPDX-License-Identifier: Apache-2.0
"""Patches of phantoms drawn on the way: the draw alone decides, none comes twice."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from ball_cases import write_ball_case, write_table

from fieldfare.common.errors import InputError
from fieldfare.common.training import Draw, TrainSettings
from fieldfare.medical.data.augmentation import Augmentation
from fieldfare.medical.data.patches import DataSettings, PatchDataset, cache_cases
from fieldfare.medical.data.table import read_table
from fieldfare.medical.networks.config import NetworkConfig
from fieldfare.medical.training import run as training
from fieldfare.medical.training import synthetic
from fieldfare.medical.training.run import train
from fieldfare.medical.training.synthetic import ALIVE, SHARED, SyntheticPatches

pytest.importorskip("nilearn", reason="NILEARN IS NOT INSTALLED: phantoms are NOT tested")

TINY = NetworkConfig(spacing=8.0, channels=(8, 16), blocks=(1, 1), decoder_blocks=(1,), expansion=2)
DATA = DataSettings(size=(8, 8, 8))


def draws(*numbers: int) -> list[Draw]:
    return [Draw(0, (5, number)) for number in numbers]


def test_a_draw_gives_the_same_whatever_came_before() -> None:
    one = SyntheticPatches(1.0, None, DATA, TINY)
    two = SyntheticPatches(1.0, None, DATA, TINY)
    (wanted,) = draws(3)
    for draw in draws(0, 1, 2, 40):
        one[draw]
    first, second = one[wanted], two[wanted]
    assert torch.equal(first["image"], second["image"])
    assert torch.equal(first["depth"], second["depth"])


def test_no_phantom_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    original = synthetic.draw_sample

    def noted(rng: np.random.Generator, config: NetworkConfig) -> object:
        sample = original(rng, config)
        drawn.append(hash(sample.image.tobytes()))
        return sample

    monkeypatch.setattr(synthetic, "draw_sample", noted)
    patches = SyntheticPatches(1.0, None, DATA, TINY)
    count = 3 * ALIVE * SHARED[3]
    for draw in draws(*range(count)):
        patches[draw]
    assert len(drawn) == len(set(drawn)) == count / SHARED[3]


def test_a_patch_has_the_shape_and_values_of_one_of_a_case() -> None:
    settings = dataclasses.replace(DATA, augmentation=Augmentation.off(), foreground=1.0)
    patches = SyntheticPatches(1.0, None, settings, TINY)
    for draw in draws(*range(6)):
        patch = patches[draw]
        assert patch["image"].shape == (4, 8, 8, 8)
        assert patch["depth"].any()
        assert patch["depth"].max() <= 3
        assert patch["image"].abs().max() < 10  # z-scored


def test_a_share_of_the_patches_is_of_the_cases(tmp_path: Path) -> None:
    write_ball_case(tmp_path / "C0")
    table = write_table(tmp_path / "cases.csv", ("C0", "train", ""))
    cases = cache_cases(read_table(table, scheme="brats2023"), TINY, tmp_path / "p", quiet=True)
    real = PatchDataset(cases, DATA)
    mixed = SyntheticPatches(0.5, real, DATA, TINY)
    alike = 0
    for draw in draws(*range(24)):
        alike += torch.equal(mixed[draw]["image"], real[draw]["image"])
    assert 4 <= alike <= 20


def test_training_needs_no_case_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = TrainSettings(steps=4, batch_size=2, learning_rate=1e-2, checkpoint_every=2)

    def run(folder: str, share: float = 1.0) -> dict[str, torch.Tensor]:
        network = train(TINY, [], plan, DATA, tmp_path / folder, synthetic=share, quiet=True)
        return network.state_dict()

    whole = run("whole")
    calls, loss = [], training.Objective.__call__

    def stop_in_the_fourth_step(
        self: training.Objective, model: torch.nn.Module, batch: object
    ) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 4:
            raise MemoryError
        return loss(self, model, batch)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(training.Objective, "__call__", stop_in_the_fourth_step)
        with pytest.raises(MemoryError):
            run("parts")
    resumed = run("parts")
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name
    monkeypatch.setattr(training, "PHANTOMS", training.PHANTOMS + 1)
    with pytest.raises(InputError, match="other settings"):
        run("parts")  # phantoms that are drawn otherwise make another run
    with pytest.raises(InputError, match="no case in the split train"):
        run("none", 0.5)
