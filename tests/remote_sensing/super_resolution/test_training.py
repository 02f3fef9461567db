# SPDX-License-Identifier: Apache-2.0
"""Training on several folders of degraded inputs, and the comparison that no grid favours."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sample_rasters import smooth, write_raster

from fieldfare.common.weights import read_card
from fieldfare.remote_sensing.super_resolution.cli import main
from fieldfare.remote_sensing.super_resolution.networks.ediffsr import EDiffSRConfig
from fieldfare.remote_sensing.super_resolution.networks.model import (
    ModelConfig,
    SuperResolutionModel,
    enlarge,
    velocity_target,
)
from fieldfare.remote_sensing.super_resolution.training import Objective, grid_error, rolled


def folder_of(path: Path, count: int) -> Path:
    path.mkdir()
    for number in range(count):
        values = smooth(3, 48, 48, 0, 255 - 20 * number).astype(np.uint8)
        write_raster(path / f"{number}.tif", values)
    return path


def trained(target: Path, *arguments: object):
    given = ["train", *arguments, "-o", target, "--patch", "8", "--batch", "1", "--steps", "1"]
    given += ["--precision", "fp32", "--device", "cpu", "--quiet"]
    return CliRunner().invoke(main, [str(argument) for argument in given])


def test_the_card_names_folders_and_degradations(tmp_path):
    folders = [folder_of(tmp_path / name, 2) for name in ("near", "far")]
    result = trained(tmp_path / "run", *folders, "--noise-sigma", "3.5")
    assert result.exit_code == 0, result.output
    card = read_card(tmp_path / "run" / "model.safetensors")
    assert "near: 2 GeoTIFF tiles; far: 2 GeoTIFF tiles" in card.data
    assert "noise_sigma=3.5" in card.data
    clean = trained(tmp_path / "clean", *folders, "--degraded-share", "0")
    assert clean.exit_code == 0, clean.output
    assert "clean" in read_card(tmp_path / "clean" / "model.safetensors").data


def test_a_missing_folder_among_several_is_refused(tmp_path):
    result = trained(tmp_path / "run", folder_of(tmp_path / "near", 2), tmp_path / "none")
    assert result.exit_code == 2
    assert "none: no such folder" in result.stderr


def test_images_are_rolled_each_by_its_own_shift():
    images = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).float()
    found = rolled(images, torch.tensor([[0, 0], [1, 3]]))
    assert torch.equal(found[0], images[0])
    assert torch.equal(found[1], images[1].roll((1, 3), (1, 2)))


def test_the_comparison_sees_both_images_shifted_alike(monkeypatch):
    seen = []

    class Distance(torch.nn.Module):
        def forward(self, image, truth):
            seen.append((image, truth))
            return (image - truth).square().mean(dim=(1, 2, 3))

    network = EDiffSRConfig(width=16, encoder_blocks=(1,), middle_blocks=1, decoder_blocks=(1,))
    model = SuperResolutionModel(ModelConfig(network, prediction="velocity"))
    objective = Objective(model)
    objective.distance, objective.perceptual_weight = Distance(), 1.0
    high = torch.rand(2, 3, 16, 16)
    batch = {
        "high": high,
        "low": torch.nn.functional.avg_pool2d(high, 4),
        "t": torch.tensor([100, 40]),
        "own": torch.tensor([False, False]),
        "noise": torch.randn(2, 3, 16, 16),
        "shift": torch.tensor([[9, 9], [2, 5]]),
    }
    first = objective(model, batch)
    assert torch.equal(seen[0][1], high[1:].roll((2, 5), (2, 3)))
    assert float(objective(model, batch | {"shift": torch.zeros(2, 2, dtype=torch.int)})) == (
        pytest.approx(float(first), rel=1e-5)
    )


def test_a_grid_is_an_error_and_what_has_no_grid_is_none():
    rows, columns = torch.arange(64)[:, None], torch.arange(64)[None]
    woven = ((rows % 4 == 1) & (columns % 4 == 2)).float().expand(2, 3, 64, 64)
    smooth_error = (rows // 4 + columns // 8).float().expand(2, 3, 64, 64)
    assert float(grid_error(smooth_error, 4)) == pytest.approx(0, abs=1e-9)
    fixed = float(grid_error(woven, 4))
    assert fixed == pytest.approx(21 * (1 / 16) * (15 / 16))  # of 1 at one of 16 places
    assert float(grid_error(woven + smooth_error, 4)) == pytest.approx(fixed)
    changing = woven * torch.tensor([1.0, -1.0])[:, None, None, None]  # of no fixed sign
    assert float(grid_error(changing, 4)) == pytest.approx(fixed / 21)


def test_a_grid_costs_more_than_noise_of_the_same_power():
    network = EDiffSRConfig(width=16, encoder_blocks=(1,), middle_blocks=1, decoder_blocks=(1,))
    model = SuperResolutionModel(ModelConfig(network, prediction="velocity"))
    objective = Objective(model)
    high = torch.rand(2, 3, 32, 32)
    low = torch.nn.functional.avg_pool2d(high, 4)
    noise = torch.randn(2, 3, 32, 32)
    t = torch.tensor([100, 60])
    batch = {"high": high, "low": low, "t": t, "own": torch.tensor([False, False]), "noise": noise}
    right = velocity_target(high, enlarge(low, 4), noise, t, model.sde)
    grid = torch.rand(4, 4).repeat(8, 8) - 0.5
    scattered = grid.flatten()[torch.randperm(32 * 32)].reshape(32, 32)
    losses = [
        float(objective(lambda x, mu, t, low, off=off: right + off, batch))
        for off in (0, scattered, grid)
    ]
    assert losses[0] == pytest.approx(0, abs=1e-6)
    assert losses[0] < losses[1] < losses[2] / 2
