# SPDX-License-Identifier: Apache-2.0
"""fieldfare search precoding: costs, pooling by zeros, networks that wl-precode takes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from fieldfare.common.cli import main
from fieldfare.common.elastic.genes import Choice
from fieldfare.common.errors import InputError
from fieldfare.common.search.tasks import Given, make_task
from fieldfare.wireless.channels.rayleigh import rayleigh
from fieldfare.wireless.networks.models import load_precoder_network
from fieldfare.wireless.networks.precoder import IcgnnPrecoder, precode
from fieldfare.wireless.precoding.commands.search import (
    POOLS,
    SPACE,
    PrecodingSearch,
    restricted,
)
from fieldfare.wireless.precoding.learned import load_precoder
from fieldfare.wireless.signals.rates import sum_rate
from fieldfare.wireless.signals.wmmse import wmmse
from fieldfare.wireless.training.validation import PrecoderValidation


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few validation channels."""
    init = PrecoderValidation.__init__
    monkeypatch.setattr(PrecoderValidation, "__init__", lambda self, count: init(self, 4))


def test_costs_rise_with_depth_and_width_and_not_with_the_recipe(quick: None) -> None:
    task = PrecodingSearch(Given())
    base = dict(SPACE.smallest())
    for gene in ("layers", "width"):
        costs = [task.macs(SPACE.canonical({**base, gene: v})) for v in SPACE.genes[gene]]
        assert costs == sorted(set(costs))
    for gene in task.recipe:
        assert len({task.macs(SPACE.canonical({**base, gene: v})) for v in SPACE.genes[gene]}) == 1
    # 69 of Gram matrix, product, 7 inverses and 6 layers of width 10 for 8 users, 8 antennas
    by_hand = 69 * (4 * 36 * 8 + 4 * 64 * 8 + 7 * 1024 + 6 * (8 * 210 + 200) + 5 * 800)
    assert task.macs(task.presets["icgnn_precoder"]) == by_hand


@pytest.mark.parametrize("pool", POOLS)
def test_a_restricted_network_sees_no_more_of_others_after_training(
    quick: None, tmp_path: Path, pool: str
) -> None:
    task = PrecodingSearch(Given(steps=3))
    choice = SPACE.canonical({"layers": 2, "width": 4, "pool": pool, "learning_rate": 0.016})
    target = tmp_path / "found.safetensors"
    quality = task.evaluate(choice, target, tmp_path / "work")
    network, card = load_precoder_network(str(target))
    torch.manual_seed(0)
    fresh = restricted(IcgnnPrecoder(4, 2), pool)
    for layer, first in zip(network.layers, fresh.layers, strict=True):
        own, mean, most = layer.mix.weight.split(4, 1)
        assert own.any()
        assert (bool(mean.any()), bool(most.any())) == tuple(map(bool, POOLS[pool]))
        assert not torch.equal(layer.mix.weight, first.mix.weight)
    assert card.metrics[0].value == quality == task.validate(network)["ratio"]


def test_a_found_network_goes_through_the_loops_of_the_command(quick: None, tmp_path: Path) -> None:
    task = PrecodingSearch(Given(steps=2))
    choice = SPACE.canonical({"layers": 1, "width": 6, "pool": "mean", "learning_rate": 0.002})
    target = tmp_path / "found.safetensors"
    task.evaluate(choice, target, tmp_path / "work")
    H = rayleigh((5, 3, 4), torch.Generator().manual_seed(0))
    one = H.real.new_ones(5)
    found = load_precoder(str(target), select=False)(H, 10 * one, one, None)
    wanted = precode(load_precoder_network(str(target))[0], H, 10.0)
    assert torch.allclose(found.W, wanted.W, atol=1e-4)
    assert task.runner(choice)() is not None


def test_the_command_searches_and_the_same_seed_finds_the_same(quick: None, tmp_path: Path) -> None:
    fronts = []
    for name in ("first", "second"):
        arguments = ["search", "precoding", "--evaluations", "4", "--steps", "2", "--seed", "3"]
        arguments += ["--limit", "900kMAC", "-o", str(tmp_path / name), "--quiet"]
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, done.output
        fronts.append(json.loads((tmp_path / name / "front.json").read_text()))
    assert fronts[0] == fronts[1]
    assert max(row["macs"] for row in fronts[0]["front"]) <= 900_000
    load_precoder_network(str(tmp_path / "first/model.safetensors"))


def write(path: Path, H: torch.Tensor, **more: object) -> Path:
    np.savez(path, H=H.numpy(), power=100.0, noise_power=2.0, **more)
    return path


def test_own_channels_are_trained_and_measured_on(quick: None, tmp_path: Path) -> None:
    H = 0.1 * rayleigh((12, 2, 3, 4), torch.Generator().manual_seed(0))
    path = write(tmp_path / "own.npz", H)
    task = PrecodingSearch(Given((path,), steps=2))
    assert task.stored[0].shape == (18, 3, 4)  # three quarters, two tones each
    assert float(task.stored[0].abs().square().mean()) == pytest.approx(1, rel=1e-5)
    low, high = task.cells.snr_db
    assert low < 10 * np.log10(0.5) < high  # 0.01 * 100 / 2
    assert high - low < 25
    target = tmp_path / "found.safetensors"
    choice = SPACE.canonical({"layers": 1, "width": 6, "pool": "mean", "learning_rate": 0.002})
    quality = task.evaluate(choice, target, tmp_path / "work")
    network, card = load_precoder_network(str(target))
    held = H[9:].reshape(6, 3, 4).to(torch.complex128)
    with torch.no_grad():
        W = precode(network, held, 100.0, 2.0, guard=False).W
    best = wmmse(held, 100.0, 2.0).W
    wanted = float(sum_rate(held, W, 2.0).sum() / sum_rate(held, best, 2.0).sum())
    assert quality == pytest.approx(wanted, rel=1e-6)
    assert "own.npz" in card.data
    assert "last quarter" in card.metrics[0].definition
    other = PrecodingSearch(Given((write(tmp_path / "own2.npz", 2 * H),), steps=2))
    assert other.identity != task.identity


def test_own_channels_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    H = rayleigh((5, 3, 4), torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match=r"few\.npz: 3 channels; give 4"):
        PrecodingSearch(Given((write(tmp_path / "few.npz", H[:3]),)))
    H[2, 1] = 0
    with pytest.raises(InputError, match=r"gap\.npz: some user has no channel"):
        PrecodingSearch(Given((write(tmp_path / "gap.npz", H),)))
    with pytest.raises(InputError, match="no such file"):
        PrecodingSearch(Given((tmp_path / "none.npz",)))


def test_precoding_is_registered(quick: None) -> None:
    task = make_task("precoding", Given())
    assert isinstance(task, PrecodingSearch)
    assert isinstance(task.presets["icgnn_precoder"], Choice)
