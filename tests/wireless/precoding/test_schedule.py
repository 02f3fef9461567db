# SPDX-License-Identifier: Apache-2.0
"""infer with proportional fairness, for users with several antennas, in Sionna's axes."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from fieldfare.wireless.precoding import cli

LEVELS = {"power": 10.0, "noise_power": 0.5}


def run(source: Path, *options: object) -> Result:
    target = source.with_name("w.npz")
    given = ["infer", source, "-o", target, "--overwrite", *options]
    return CliRunner().invoke(cli.main, [str(part) for part in given])


def infer(source: Path, *options: object) -> dict[str, np.ndarray]:
    done = run(source, *options)
    assert done.exit_code == 0, done.output
    with np.load(source.with_name("w.npz")) as found:
        return dict(found)


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    parts = np.random.default_rng(seed).normal(size=(*shape, 2)).astype(np.float32)
    return np.asarray(parts[..., 0] + 1j * parts[..., 1], dtype=np.complex64)


def test_in_the_long_run_everybody_is_served(tmp_path: Path) -> None:
    source = tmp_path / "h.npz"
    strength = np.array([1.0, 0.1, 1.0, 0.02, 0.5, 0.3], np.float32)[:, None]
    past, total = np.zeros((1, 6), np.float32), {"fair": 0.0, "greedy": 0.0}
    for slot in range(25):
        np.savez(source, H=draw(1, 6, 2, seed=slot) * strength, past_rate=past, **LEVELS)
        options = ("--method", "greedy")
        fair = infer(source, *options, "--schedule", "proportional-fair", "--past-slots", 10)
        past = fair["past_rate"]
        total["fair"] = total["fair"] + fair["rate"][0]
        total["greedy"] = total["greedy"] + infer(source, *options)["rate"][0]
    assert (total["fair"] > 0).all()
    assert np.log(total["fair"]).sum() > np.log(total["greedy"] + 1e-9).sum()
    assert total["greedy"].sum() > total["fair"].sum()


def test_past_rates_are_weights_and_go_on_as_an_average(tmp_path: Path) -> None:
    source = tmp_path / "h.npz"
    H, past = draw(3, 4, 4), np.array([[1.0, 2, 3, 4], [2, 2, 2, 2], [0, 0, 0, 0]], np.float32)
    np.savez(source, H=H, past_rate=past, **LEVELS)
    fair = infer(source, "--schedule", "proportional-fair", "--past-slots", 4, "--method", "wmmse")
    np.testing.assert_allclose(fair["past_rate"], 0.75 * past + 0.25 * fair["rate"], rtol=1e-5)
    weights = np.array([[12.0, 6, 4, 3], [1, 1, 1, 1], [1, 1, 1, 1]], np.float32)
    np.savez(source, H=H, weights=weights, **LEVELS)
    np.testing.assert_allclose(infer(source, "--method", "wmmse")["W"], fair["W"], atol=1e-4)


def test_what_proportional_fairness_needs_is_asked_for(tmp_path: Path) -> None:
    source = tmp_path / "h.npz"
    np.savez(source, H=draw(1, 2, 2), **LEVELS)
    done = run(source, "--schedule", "proportional-fair")
    assert done.exit_code == 2
    assert "h.npz: no past_rate" in done.stderr
    done = run(source, "--schedule", "proportional-fair", "--method", "rzf")
    assert done.exit_code == 2
    assert "heeds no weights" in done.stderr


@pytest.mark.parametrize("method", ["rzf", "wmmse", "icgnn"])
def test_streams_of_users_with_several_antennas(method: str, tmp_path: Path) -> None:
    source = tmp_path / "h.npz"
    H = draw(2, 3, 4, 2, 8)  # B, F, K, M, N
    np.savez(source, H=H, **LEVELS)
    rates = {}
    for streams in (1, 2):
        found = infer(source, "--streams", streams, "--method", method)
        W, receivers = found["W"], found["receivers"]
        assert W.shape == (2, 3, 8, 4 * streams)
        assert receivers.shape == (2, 3, 4, 2, streams)
        np.testing.assert_allclose((np.abs(W) ** 2).sum((-2, -1)), 10, rtol=1e-4)
        received = receivers.conj().swapaxes(-2, -1) @ H @ W[:, :, None]
        power = np.abs(received.reshape(2, 3, 4 * streams, 4 * streams)) ** 2
        signal = np.diagonal(power, axis1=-2, axis2=-1)
        each = np.log2(1 + signal / (power.sum(-1) - signal + 0.5))
        expected = each.reshape(2, 3, 4, streams).sum(-1)
        np.testing.assert_allclose(found["rate"], expected, rtol=1e-3)
        rates[streams] = found["rate"].sum(-1).mean()
    np.savez(source, H=H[..., 0, :], **LEVELS)
    assert rates[1] > 1.05 * infer(source, "--method", method)["rate"].sum(-1).mean()
    if method == "wmmse":
        assert rates[2] > rates[1]


def test_more_streams_than_antennas_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "h.npz"
    np.savez(source, H=draw(2, 3, 4, 2, 8), **LEVELS)
    done = run(source, "--streams", 3)
    assert done.exit_code == 2
    assert "take at most 2" in done.stderr
    done = run(source)
    assert done.exit_code == 2
    assert "2 antennas a user" in done.stderr
    assert "--streams" in done.stderr


def test_a_dry_run_knows_streams(tmp_path: Path) -> None:
    source = tmp_path / "h.npz"
    np.savez(source, H=draw(2, 3, 4, 2, 8), past_rate=np.ones((2, 3, 4)), **LEVELS)
    options = ("--streams", 2, "--schedule", "proportional-fair", "--dry-run")
    assert "6 channels, 4 users, 8 antennas" in run(source, *options).stdout


def test_sionnas_axes_come_back(tmp_path: Path) -> None:
    source = tmp_path / "h.npz"
    h = draw(2, 3, 1, 1, 4, 2, 5)  # batch, receiver, antenna, transmitter, antenna, symbol, tone
    np.savez(source, h=h, **LEVELS)
    found = infer(source, "--method", "rzf")
    assert found["W"].shape == (2, 1, 2, 5, 4, 3)
    assert found["rate"].shape == (2, 3, 2, 5)
    np.savez(source, H=h[1, :, 0, 0, :, 1, 3], **LEVELS)
    alone = infer(source, "--method", "rzf")
    np.testing.assert_allclose(found["W"][1, 0, 1, 3], alone["W"], rtol=1e-5)
    np.testing.assert_allclose(found["rate"][1, :, 1, 3], alone["rate"], rtol=1e-5)
    np.savez(source, h=draw(2, 3, 2, 1, 4, 2, 5), **LEVELS)
    streams = infer(source, "--method", "rzf", "--streams", 1)
    assert streams["W"].shape == (2, 1, 2, 5, 4, 3)
    assert streams["receivers"].shape == (2, 3, 2, 5, 2, 1)
