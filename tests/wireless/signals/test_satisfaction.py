# SPDX-License-Identifier: Apache-2.0
"""Satisfaction with a zone of tolerance: the curve, the powers, and the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from fieldfare.wireless.cell_free import cli
from fieldfare.wireless.channels.drops import draw_networks
from fieldfare.wireless.channels.files import write_network
from fieldfare.wireless.signals import satisfaction as signals
from fieldfare.wireless.signals.cell_free import CellFree, spectral_efficiency
from fieldfare.wireless.signals.max_min import max_min
from fieldfare.wireless.signals.satisfaction import (
    Profile,
    least_power,
    maximise_satisfaction,
    mean_satisfaction,
    satisfaction,
    spent,
)
from fieldfare.wireless.signals.sum_rate import maximise_sum_rate


def drawn(count: int = 3) -> CellFree:
    generator = torch.Generator().manual_seed(5)
    return draw_networks(count, 4, 12, 2, generator=generator, dtype=torch.float64)


def around(network: CellFree) -> Profile:
    """Zones that hold what max-min gives everyone, of different widths."""
    fair = float(spectral_efficiency(network, max_min(network).mu).amin(-1).mean())
    below = torch.tensor([0.9, 0.6, 0.4, 0.8], dtype=torch.float64)
    above = torch.tensor([1.6, 1.2, 1.5, 1.1], dtype=torch.float64)
    return Profile(fair * below, fair * above, torch.ones(4, dtype=torch.float64))


def test_the_curve_has_the_values_of_the_example() -> None:
    two_to_five = Profile(torch.tensor([2.0]), torch.tensor([5.0]), torch.ones(1))
    found = satisfaction(torch.arange(9.0)[:, None], two_to_five)[:, 0]
    expected = [0.0059, 0.0250, 0.1, 0.3247, 0.6753, 0.9, 0.9750, 0.9941, 0.9986]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    middle = torch.tensor([3.5], requires_grad=True)
    satisfaction(middle, two_to_five).sum().backward()  # type: ignore[no-untyped-call]
    assert middle.grad is not None
    assert float(middle.grad) == pytest.approx(0.366204, abs=1e-6)


def test_no_other_allocation_satisfies_more() -> None:
    network = drawn()
    profile = around(network)
    mu = maximise_satisfaction(network, profile)
    reached = mean_satisfaction(network, mu, profile)
    for other in (max_min(network).mu, maximise_sum_rate(network).mu):
        assert (reached > mean_satisfaction(network, other, profile)).all()
    assert (mu.square().sum(-2) <= network.power * (1 + 1e-9)).all()
    assert (mu >= 0).all()


def test_equal_satisfaction_takes_less_power() -> None:
    network = drawn()
    profile, fair = around(network), max_min(network).mu
    wanted = mean_satisfaction(network, fair, profile)
    mu = least_power(network, profile, wanted, fair)
    assert (mean_satisfaction(network, mu, profile) >= wanted).all()
    assert (spent(network, mu) < spent(network, fair)).all()
    assert spent(network, mu).mean() < 0.6 * spent(network, fair).mean()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.setattr(signals, "STEPS", 60)
    monkeypatch.setattr(signals, "HALVINGS", 6)
    network = drawn(2)
    profile = around(network)
    write_network(tmp_path / "n.npz", network)
    lines = ["user,adequate,desired"]
    lines += [f"{user},{profile.adequate[user]},{profile.desired[user]}" for user in (2, 0, 3, 1)]
    (tmp_path / "users.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "n.npz", tmp_path / "users.csv"


def test_eval_and_infer_know_what_users_ask_for(files: tuple[Path, Path]) -> None:
    source, users = files
    methods = [part for name in ("satisfaction", "max-min") for part in ("--method", name)]
    done = run("eval", source, "--profile", users, *methods, "--quiet", "--json")
    assert done.exit_code == 0, done.output
    most, fair = json.loads(done.stdout)["rows"]
    assert most["satisfaction"] > fair["satisfaction"]
    assert fair["users_at_0"] == 0
    assert 0 < most["power"] <= 1
    spending = {}
    for satisfied in (0.3, 0.5):
        options = ("--method", "satisfaction", "--profile", users, "--satisfied", satisfied)
        target = source.with_name(f"{satisfied}.npz")
        done = run("infer", source, "-o", target, *options)
        assert done.exit_code == 0, done.output
        spending[satisfied] = (np.load(target)["mu"] ** 2).sum()
    assert spending[0.3] < spending[0.5] < most["power"] * 2 * 12 * 199.526


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("user,adequate\n0,1\n", "no column desired"),
        ("user,adequate,desired\n0,1,x\n", "line 2 is not all numbers"),
        ("user,adequate,desired\n0,2,1\n", "adequate < desired"),
        ("user,adequate,desired\n0,1,2\n0,1,2\n", "each once"),
        ("user,adequate,desired\n0,1,2\n", "the networks have 4"),
        ("user,adequate,desired,weight\n0,1,2,0\n", "no user has a weight"),
    ],
)
def test_a_bad_profile_is_refused(files: tuple[Path, Path], text: str, said: str) -> None:
    source, users = files
    users.write_text(text)
    target = source.with_name("mu.npz")
    done = run("infer", source, "-o", target, "--method", "satisfaction", "--profile", users)
    assert done.exit_code == 2
    assert "users.csv" in done.stderr
    assert said in done.stderr
    assert not target.exists()


def test_another_profile_is_not_mixed_into_a_folder(files: tuple[Path, Path]) -> None:
    source, users = files
    folder = source.with_name("out")
    folder.mkdir()
    options = ("-o", folder, "--method", "satisfaction", "--profile", users)
    done = run("infer", source, *options)
    assert done.exit_code == 0, done.output
    users.write_text(users.read_text().replace("adequate,desired", "adequate,desired,weight"))
    done = run("infer", source, *options)
    assert done.exit_code == 2
    assert "profile" in done.stderr


def test_without_a_profile_there_is_nothing_to_satisfy(files: tuple[Path, Path]) -> None:
    done = run("infer", files[0], "-o", files[0].with_name("mu.npz"), "--method", "satisfaction")
    assert done.exit_code == 2
    assert "--profile" in done.stderr
