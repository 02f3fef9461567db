# SPDX-License-Identifier: Apache-2.0
"""wl-channel, wl-precode and wl-power from file to file, and what they say to bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from fieldfare.common.commands.train import save_trained
from fieldfare.common.weights import ModelCard
from fieldfare.wireless.cell_free import cli as power_cli
from fieldfare.wireless.channel import cli as channel_cli
from fieldfare.wireless.networks.models import task_of
from fieldfare.wireless.networks.power import IcgnnPower
from fieldfare.wireless.precoding import cli as precode_cli
from fieldfare.wireless.signals.linear import rzf
from fieldfare.wireless.signals.rates import rate

COMMANDS = {"channel": channel_cli.main, "precode": precode_cli.main, "power": power_cli.main}


def run(command, *arguments):
    return CliRunner().invoke(COMMANDS[command], [str(a) for a in arguments])


@pytest.fixture
def channels(tmp_path: Path) -> Path:
    path = tmp_path / "h.npz"
    done = run("channel", "gen", "-o", path, "--count", 5, "--users", 4, "--antennas", 6)
    assert done.exit_code == 0, done.output
    return path


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    path = tmp_path / "cf.npz"
    options = ("--channel", "cell-free", "--count", 3, "--users", 4, "--aps", 8, "--serving", 5)
    done = run("channel", "gen", "-o", path, *options)
    assert done.exit_code == 0, done.output
    return path


def test_same_seed_same_channels(tmp_path, channels):
    again, other = tmp_path / "again.npz", tmp_path / "other.npz"
    options = ("--count", 5, "--users", 4, "--antennas", 6)
    run("channel", "gen", "-o", again, *options)
    run("channel", "gen", "-o", other, *options, "--seed", 1)
    assert again.read_bytes() == channels.read_bytes()
    assert other.read_bytes() != channels.read_bytes()


def test_precoders_go_from_file_to_file(tmp_path, channels):
    target = tmp_path / "w.npz"
    done = run("precode", "infer", channels, "-o", target, "--method", "rzf", "--json")
    assert done.exit_code == 0, done.output
    with np.load(channels) as given, np.load(target) as found:
        H, power = torch.from_numpy(given["H"]), float(given["power"])
        assert found["W"].shape == (5, 6, 4)
        W = rzf(H, power, 1.0)
        assert np.allclose(found["W"], W, atol=1e-5)
        assert np.allclose(found["rate"], rate(H, W, 1.0), atol=1e-4)
        assert json.loads(done.stdout)["mean_sum_rate"] == pytest.approx(
            float(found["rate"].sum(-1).mean()), rel=1e-5
        )


def test_subcarriers_keep_their_place(tmp_path):
    source, target = tmp_path / "h.npz", tmp_path / "w.npz"
    generator = np.random.default_rng(0)
    H = generator.normal(size=(2, 3, 4, 6)) + 1j * generator.normal(size=(2, 3, 4, 6))
    np.savez(source, H=H.astype(np.complex64), power=10.0, noise_power=1.0)
    run("precode", "infer", source, "-o", target, "--method", "wmmse")
    with np.load(target) as found:
        assert found["W"].shape == (2, 3, 6, 4)
        assert found["rate"].shape == (2, 3, 4)
        assert np.allclose((np.abs(found["W"]) ** 2).sum((-2, -1)), 10, rtol=1e-4)


def test_the_packaged_network_beats_rzf_and_keeps_the_limits(tmp_path):
    source, target = tmp_path / "h.npz", tmp_path / "w.npz"
    run("channel", "gen", "-o", source, "--count", 20, "--power-db", 20)
    rates = {}
    for method in ("rzf", "icgnn"):
        done = run("precode", "infer", source, "-o", target, "--method", method, "--overwrite")
        assert done.exit_code == 0, done.output
        with np.load(target) as found:
            assert np.allclose((np.abs(found["W"]) ** 2).sum((-2, -1)), 100, rtol=1e-3)
            rates[method] = found["rate"].sum(-1)
    assert (rates["icgnn"] >= rates["rzf"] * (1 - 1e-3)).all()
    assert rates["icgnn"].mean() > 1.1 * rates["rzf"].mean()
    run("precode", "infer", source, "-o", target, "--antenna-power", 5, "--overwrite")
    with np.load(target) as found:
        assert (np.abs(found["W"]) ** 2).sum(-1).max() <= 5 * (1 + 1e-4)


def test_the_packaged_powers_come_near_the_optimum(networks, tmp_path):
    done = run("power", "eval", networks, "--method", "icgnn", "--method", "max-min", "--json")
    assert done.exit_code == 0, done.output
    learned = next(row for row in json.loads(done.stdout)["rows"] if row["method"] == "icgnn")
    assert learned["worst_ratio"] > 0.95


@pytest.mark.slow
def test_exports_agree_with_torch(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    shallow = IcgnnPower(8, 2)  # of random weights: no part of it is without effect
    for name, parameter in shallow.named_parameters():
        if "head" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    torch.nn.init.uniform_(shallow.pace)
    card = ModelCard("model", task_of(shallow), summary="Random.", config=shallow.config)
    models = {"precode": "icgnn_precoder", "power": save_trained(tmp_path, shallow, card)}
    for command, model in models.items():
        target = tmp_path / f"{command}.onnx"
        done = run(command, "export", "-o", target, "--model", model)
        assert done.exit_code == 0, done.output
        assert target.stat().st_size > 100_000


def test_eval_puts_methods_bound_and_pictures_side_by_side(tmp_path):
    options = ("--sizes", "2x4,4x4", "--count", 10, "--snr", "0,20", "--quiet")
    methods = ("--method", "rzf", "--method", "wmmse")
    done = run("precode", "eval", *options, *methods, "-o", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["rows"]
    assert len(rows) == 2 * 2 * 2
    assert all(0 < row["ratio_bound"] < 1 + 1e-9 for row in rows)
    assert all(row["ratio_wmmse"] <= 1 + 1e-6 for row in rows)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    pictures = {"rate_cdf.png", "rate_snr.png", "rate_users.png"}
    assert names == {"evaluation.csv", "evaluation.json", "channels.csv", *pictures}


def test_eval_tells_of_users_who_are_not_served() -> None:
    options = ("--sizes", "6x2", "--count", 5, "--snr", "30", "--no-bound", "--quiet", "--json")
    methods = ("--method", "greedy", "--method", "mrt")
    greedy, plain = json.loads(run("precode", "eval", *options, *methods).stdout)["rows"]
    assert greedy["users_at_0"] >= 4 / 6 - 1e-9
    assert plain["users_at_0"] < 0.1


def test_errors_in_the_channel_estimate_cost_rate(tmp_path):
    def mean_rate(*options):
        base = ("--count", 20, "--snr", 20, "--method", "rzf", "--no-bound", "--quiet", "--json")
        done = run("precode", "eval", *base, *options)
        return json.loads(done.stdout)["rows"][0]["sum_rate"]

    assert mean_rate("--csi-error", 0.1) < 0.8 * mean_rate()


def test_powers_go_from_file_to_file(tmp_path, networks):
    target = tmp_path / "mu.npz"
    done = run("power", "infer", networks, "-o", target, "--method", "fractional")
    assert done.exit_code == 0, done.output
    with np.load(networks) as given, np.load(target) as found:
        assert found["mu"].shape == (3, 4, 8)
        assert not found["mu"][~given["serving"]].any()
        spent = (found["mu"] ** 2).sum(1)
        assert (spent <= given["power"] * (1 + 1e-5)).all()
        assert (found["se"] > 0).all()


def test_power_eval_compares_with_the_max_min_optimum(tmp_path):
    options = ("--sizes", "3x6", "--count", 3, "--quiet", "--json")
    methods = ("--method", "fractional", "--method", "max-min")
    done = run("power", "eval", *options, *methods, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    fractional, optimum = json.loads(done.stdout)["rows"]
    assert fractional["ratio_max_min"] < optimum["ratio_max_min"] == 1
    assert (tmp_path / "out" / "se_cdf.png").exists()


def test_info_tells_channels_from_networks(channels, networks):
    assert json.loads(run("channel", "info", channels, "--json").stdout)["antennas"] == 6
    found = json.loads(run("channel", "info", networks, "--json").stdout)
    assert found["access_points"] == 8
    assert found["serving_aps_of_a_user"] == "5"


H = np.ones((2, 3, 4), np.complex64) + np.eye(3, 4)
BAD = {
    "NaN": ({"H": H * np.nan}, "not finite"),
    "negative weight": ({"H": H, "weights": np.array([1.0, -1.0, 1.0])}, "not be negative"),
    "mistyped": ({"H": H, "Weights": np.ones(3)}, "is it weights?"),
    "real": ({"H": H.real}, "complex64"),
    "shape": ({"H": H[0, 0]}, "(B, K, N)"),
    "power": ({"H": H, "power": 0.0}, "must be positive"),
    "objects": ({"H": np.array([{}], dtype=object)}, "never loaded"),
    "none": ({"G": H}, "no H"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_channels_are_one_line_and_exit_code_2(tmp_path, case):
    arrays, said = BAD[case]
    source, target = tmp_path / "bad.npz", tmp_path / "w.npz"
    np.savez(source, **({"power": 1.0, "noise_power": 1.0} | arrays))
    done = run("precode", "infer", source, "-o", target, "--method", "rzf")
    assert done.exit_code == 2
    assert said in done.stderr
    assert "bad.npz" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not target.exists()


def test_zero_forcing_needs_as_many_antennas_as_users(tmp_path):
    source, target = tmp_path / "h.npz", tmp_path / "w.npz"
    run("channel", "gen", "-o", source, "--users", 6, "--antennas", 4, "--count", 2)
    done = run("precode", "infer", source, "-o", target, "--method", "zf")
    assert done.exit_code == 2
    assert "h.npz" in done.stderr
    assert "use rzf" in done.stderr
    assert not target.exists()


def test_a_user_whom_no_access_point_serves_is_refused(tmp_path):
    source = tmp_path / "cf.npz"
    gains = np.ones((3, 4))
    serving = np.array([[1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=bool)
    np.savez(source, beta=gains, gamma=gains / 2, power=1.0, serving=serving)
    done = run("power", "infer", source, "-o", tmp_path / "mu.npz", "--method", "equal")
    assert done.exit_code == 2
    assert "no access point serves user 1" in done.stderr
    assert not (tmp_path / "mu.npz").exists()


@pytest.mark.parametrize("command", ["precode", "power"])
def test_a_trained_model_has_its_card_and_goes_into_infer(command, channels, networks, tmp_path):
    folder, target = tmp_path / "run", tmp_path / "out.npz"
    small = ("--max-users", 3, "--max-antennas", 4) if command == "precode" else ()
    options = ("--steps", 2, "--batch", 16, "--width", 4, "--layers", 1, "--quiet", "--json")
    done = run(command, "train", "-o", folder, *options, *small)
    assert done.exit_code == 0, done.output
    model = json.loads(done.stdout)["model"]
    assert f"wl-{command} train: 2 steps of 16" in (folder / "model.md").read_text()
    source = channels if command == "precode" else networks
    done = run(command, "infer", source, "-o", target, "--model", model)
    assert done.exit_code == 0, done.output
    done = run(command, "train", "-o", tmp_path / "more", "--init", model, *options, *small)
    assert done.exit_code == 0, done.output
    assert "; from model.safetensors" in (tmp_path / "more" / "model.md").read_text()


def test_bench_times_every_method():
    options = ("--sizes", "3x2", "--repeats", 2, "--json")
    found = json.loads(run("precode", "bench", *options, "--batches", "1,3").stdout)
    assert {row["method"] for row in found["rows"]} == {"mrt", "rzf", "greedy", "wmmse", "icgnn"}
    assert all(row["p50_us"] > 0 and row["real_macs"] > 0 for row in found["rows"])
    found = json.loads(run("power", "bench", *options, "--no-socp").stdout)
    assert {row["method"] for row in found["rows"]} >= {"equal", "icgnn", "max-min"}
