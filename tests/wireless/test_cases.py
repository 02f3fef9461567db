# SPDX-License-Identifier: Apache-2.0
"""Files as people have them, in `cases/`, through the commands: the right value, or refused."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from fieldfare.wireless.cell_free import cli as power_cli
from fieldfare.wireless.channels.files import read_channels, read_network
from fieldfare.wireless.precoding import cli as precode_cli
from fieldfare.wireless.signals.cell_free import spectral_efficiency
from fieldfare.wireless.signals.linear import rzf
from fieldfare.wireless.signals.power_baselines import fractional
from fieldfare.wireless.signals.rates import rate

CASES = Path(__file__).parent / "cases"
COMMANDS = {"precode": precode_cli.main, "power": power_cli.main}


def run(command: str, *arguments: object) -> Result:
    return CliRunner().invoke(COMMANDS[command], [str(argument) for argument in arguments])


def infer(command: str, source: Path, folder: Path, *options: object) -> dict[str, np.ndarray]:
    target = folder / "out.npz"
    done = run(command, "infer", source, "-o", target, "--overwrite", *options)
    assert done.exit_code == 0, done.output
    with np.load(target) as found:
        return dict(found)


def exact_rates(source: Path, W: np.ndarray) -> np.ndarray:
    """Of every user, in double precision from the W that was written."""
    stored = read_channels(source)
    H = stored.H.to(torch.complex128)
    return rate(H, torch.from_numpy(W).to(H.dtype), stored.noise_power).numpy()


def power_of(W: np.ndarray) -> np.ndarray:
    return (np.abs(W.astype(np.complex128)) ** 2).sum((-2, -1))


def variant(folder: Path, stem: str, **changes: Any) -> Path:
    """A case with some arrays changed."""
    with np.load(CASES / f"{stem}.npz") as stored:
        arrays = {**stored, **changes}
    path = folder / "variant.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


GREEDY = {
    "same_place": [22.631, 22.480, 21.829, 23.457, 19.986, 24.396],
    "overloaded": [26.894, 27.732, 25.324, 26.596],
}


@pytest.mark.parametrize("stem", GREEDY)
def test_users_that_cannot_all_be_served_are_selected(stem: str, tmp_path: Path) -> None:
    source = CASES / f"{stem}.npz"
    chosen = infer("precode", source, tmp_path, "--method", "greedy")
    np.testing.assert_allclose(exact_rates(source, chosen["W"]).sum(-1), GREEDY[stem], rtol=1e-4)
    found = infer("precode", source, tmp_path)
    assert exact_rates(source, found["W"]).sum() >= 0.9999 * sum(GREEDY[stem])
    assert power_of(found["W"]).max() <= 100 * (1 + 2e-6)


def test_an_evaluation_goes_on_without_zero_forcing(tmp_path: Path) -> None:
    done = run("precode", "eval", CASES / "same_place.npz", "--no-bound", "--json")
    assert done.exit_code == 0, done.output
    methods = [row["method"] for row in json.loads(done.stdout)["rows"]]
    assert methods == ["mrt", "rzf", "greedy", "wmmse", "icgnn"]
    assert "zf, zf-wf cannot serve these users" in done.stderr
    done = run("precode", "eval", CASES / "same_place.npz", "--method", "zf")
    assert done.exit_code == 2
    assert "choose others" in done.stderr


def test_guard_high_snr(tmp_path: Path) -> None:
    source = CASES / "guard_high_snr.npz"
    wanted = [
        *(6.213, 5.611, 6.798, 5.272, 6.929, 5.520, 5.115, 5.430, 6.111, 5.344),
        *(5.937, 6.171, 6.995, 7.055, 6.085, 6.051, 6.007, 6.173, 5.850, 5.762),
    ]
    safe = infer("precode", source, tmp_path, "--method", "rzf")
    np.testing.assert_allclose(exact_rates(source, safe["W"]).sum(-1), wanted, rtol=1e-4)
    found = infer("precode", source, tmp_path)
    assert (exact_rates(source, found["W"]).sum(-1) >= np.array(wanted) * (1 - 1e-4)).all()
    assert power_of(found["W"]).max() <= 1e4 * (1 + 2e-6)


def test_one_channel(tmp_path: Path) -> None:
    source = CASES / "one_channel.npz"
    found = infer("precode", source, tmp_path)
    assert found["W"].shape == (5, 3)
    assert found["rate"].shape == (3,)
    safe = infer("precode", source, tmp_path, "--method", "rzf")
    assert exact_rates(source, found["W"]).sum() >= exact_rates(source, safe["W"]).sum()


def test_only_ratios_of_weights_count_weights_scaled(tmp_path: Path) -> None:
    source = CASES / "weights_scaled.npz"
    with np.load(source) as stored:
        weights = stored["weights"]
    large = infer("precode", source, tmp_path)["W"]
    small = infer("precode", variant(tmp_path, source.stem, weights=weights / 100), tmp_path)["W"]
    both = [(weights * exact_rates(source, W)).sum(-1) for W in (large, small)]
    np.testing.assert_allclose(both[0], both[1], rtol=1e-3)


def test_a_user_of_weight_zero_gets_no_power_weight_zero(tmp_path: Path) -> None:
    source, kept = CASES / "weight_zero.npz", [0, 1, 3]
    found = infer("precode", source, tmp_path)
    assert not found["W"][..., 2].any()
    stored = read_channels(source)
    W = rzf(stored.H[:, kept], stored.power, stored.noise_power)
    safe = rate(stored.H[:, kept], W, stored.noise_power).sum(-1).numpy()
    assert (exact_rates(source, found["W"])[:, kept].sum(-1) >= safe * (1 - 1e-6)).all()


@pytest.mark.parametrize("method", ["icgnn", "rzf", "wmmse", "greedy", "zf", "mrt"])
def test_a_blocked_user_is_as_if_it_were_not_there_blocked_user(
    method: str, tmp_path: Path
) -> None:
    source = CASES / "blocked_user.npz"
    found = infer("precode", source, tmp_path, "--method", method)
    assert not found["W"][2, :, 1].any()
    assert found["rate"][2, 1] == 0
    with np.load(source) as stored:
        others = variant(tmp_path, source.stem, H=stored["H"][2:3][:, [0, 2, 3]])
    alone = infer("precode", others, tmp_path, "--method", method)
    np.testing.assert_allclose(found["W"][2][:, [0, 2, 3]], alone["W"][0], atol=1e-5)


def test_antenna_power_is_used(tmp_path: Path) -> None:
    source, limit = CASES / "antenna_power.npz", ("--antenna-power", 0.125)
    scaled = [4.349, 4.995, 4.439, 4.990, 4.172, 5.154, 5.182, 4.767, 5.894, 4.161, 5.315, 4.579]
    best = [5.986, 6.298, 6.093, 6.329, 5.916, 6.667, 6.428, 6.894, 6.774, 5.243, 6.939, 5.724]
    safe = infer("precode", source, tmp_path, *limit, "--method", "rzf")
    np.testing.assert_allclose(exact_rates(source, safe["W"]).sum(-1), scaled, rtol=2e-4)
    for method in ("icgnn", "wmmse"):
        W = infer("precode", source, tmp_path, *limit, "--method", method)["W"]
        found = exact_rates(source, W).sum(-1)
        assert (found >= scaled).all()
        assert found.mean() >= 0.995 * np.mean(best)
        rows = (np.abs(W.astype(np.complex128)) ** 2).sum(-1)
        assert rows.max() <= 0.125 * (1 + 2e-6)
        assert power_of(W).max() <= 1 + 2e-6


def test_noise_of_user(tmp_path: Path) -> None:
    source = CASES / "noise_of_user.npz"
    found = infer("precode", source, tmp_path, "--method", "rzf")
    wanted = [13.319, 14.477, 15.400, 14.149, 13.833]
    np.testing.assert_allclose(found["rate"].sum(-1), wanted, atol=1e-3)
    with np.load(source) as stored:
        H, noise = stored["H"][:4], stored["noise_power"]
    either = variant(tmp_path, source.stem, H=H)  # as many channels as users
    done = run("precode", "infer", either, "-o", tmp_path / "w.npz")
    assert done.exit_code == 2
    assert "may be of channels or of users; make it (4, 1) for channels or (1, 4)" in done.stderr
    users = infer("precode", variant(tmp_path, source.stem, H=H, noise_power=noise[None]), tmp_path)
    assert np.abs(users["rate"].sum(-1) - wanted[:4]).max() < 2
    each = infer(
        "precode", variant(tmp_path, source.stem, H=H, noise_power=noise[:, None]), tmp_path
    )
    assert np.abs(each["rate"] - users["rate"]).max() > 0.1


@pytest.mark.parametrize(
    ("name", "shape", "mean"),
    [("sionna_ofdm.npz", (3, 1, 2, 6, 8, 4), 14.7380), ("matlab_v5.mat", (4, 8, 6), 15.0863)],
)
def test_channels_of_other_tools(
    name: str, shape: tuple[int, ...], mean: float, tmp_path: Path
) -> None:
    found = infer("precode", CASES / name, tmp_path, "--method", "rzf")
    assert found["W"].shape == shape
    users = 1 if len(shape) == 6 else -1  # of Sionna's axes the second
    assert found["rate"].sum(users).mean() == pytest.approx(mean, abs=1e-4)


@pytest.mark.parametrize("stem", ["cellfree_float64", "cellfree_watts", "cellfree_blocked"])
def test_power_of_networks(stem: str, tmp_path: Path) -> None:
    source = CASES / f"{stem}.npz"
    found = infer("power", source, tmp_path)
    network = read_network(source)
    usual = spectral_efficiency(network, fractional(network)).amin(-1).numpy()
    lowest = found["se"].min(-1)
    assert (lowest >= 0.97 * usual).all()
    assert lowest.mean() > 1.3 * usual.mean() > 1
    assert not found["mu"][~network.serving.numpy()].any()
    assert ((found["mu"] ** 2).sum(-2) <= network.power.numpy() * (1 + 2e-6)).all()


def test_gains_that_are_not_over_the_noise_are_refused(tmp_path: Path) -> None:
    source = variant(tmp_path, "cellfree_watts", noise_power=None)
    done = run("power", "infer", source, "-o", tmp_path / "mu.npz")
    assert done.exit_code == 2
    assert "add noise_power" in done.stderr


def test_a_user_without_any_gain_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    with np.load(CASES / "cellfree_float64.npz") as stored:
        beta, gamma = stored["beta"], stored["gamma"]
    rest = [0, 1, 3, 4]
    few = {"beta": beta[:, rest], "gamma": gamma[:, rest]}
    alone = infer("power", variant(tmp_path, "cellfree_float64", **few), tmp_path)
    beta[1, 2] = gamma[1, 2] = 0
    silent = variant(tmp_path, "cellfree_float64", beta=beta, gamma=gamma)
    found = infer("power", silent, tmp_path)
    assert not found["mu"][1, 2].any()
    np.testing.assert_allclose(found["mu"][1][rest], alone["mu"][1], rtol=1e-6)


def test_damaged_header(tmp_path: Path) -> None:
    done = run("precode", "infer", CASES / "damaged_header.npz", "-o", tmp_path / "w.npz")
    assert done.exit_code == 2
    assert "damaged npz" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_array_that_nobody_reads_costs_nothing(tmp_path: Path) -> None:
    path, header = tmp_path / "large.npz", io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**9,)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in read_channels(CASES / "one_channel.npz")._asdict().items():
            if array is not None:
                member = io.BytesIO()
                np.save(member, array.numpy())
                archive.writestr(f"{name}.npy", member.getvalue())
        archive.writestr("positions.npy", header.getvalue())
    assert infer("precode", path, tmp_path, "--method", "rzf")["W"].shape == (5, 3)


def test_an_output_is_never_an_input(tmp_path: Path) -> None:
    source = variant(tmp_path, "one_channel")
    before = source.read_bytes()
    link = tmp_path / "link.npz"
    link.hardlink_to(source)
    for target in (source, link):
        done = run("precode", "infer", source, "-o", target, "--overwrite")
        assert done.exit_code == 2
        assert "is an input" in done.stderr
    result = tmp_path / "variant_W.npz"
    result.write_bytes(before)
    done = run("precode", "infer", source, result, "-o", tmp_path, "--overwrite")
    assert done.exit_code == 2
    assert "is an input" in done.stderr
    assert source.read_bytes() == result.read_bytes() == before
