# SPDX-License-Identifier: Apache-2.0
"""wl-power beyond maximum ratio: MMSE at every access point or over all, clusters, fronthaul."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from fieldfare.wireless.cell_free import cli
from fieldfare.wireless.channel import cli as channel_cli


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


@pytest.fixture
def clusters(tmp_path: Path) -> Path:
    path = tmp_path / "cf.npz"
    options = ("--channel", "cell-free", "--count", 2, "--users", 5, "--aps", 9, "--antennas", 2)
    more = ("--clusters", "--pilots", 3, "-o", path)
    done = CliRunner().invoke(channel_cli.main, ["gen", *(str(part) for part in options + more)])
    assert done.exit_code == 0, done.output
    return path


def test_clusters_are_drawn_with_their_pilots(clusters: Path) -> None:
    with np.load(clusters) as found:
        assert set(np.unique(found["pilots"])) == {0, 1, 2}
        masters = found["beta"].argmax(-1)
        assert np.take_along_axis(found["serving"], masters[..., None], -1).all()
        assert found["serving"].sum(1).max() <= 5
        assert not found["serving"].all()


@pytest.mark.parametrize("precoding", ["lp-mmse", "p-mmse"])
def test_mmse_powers_keep_the_limits_and_repeat(
    clusters: Path, tmp_path: Path, precoding: str
) -> None:
    target = tmp_path / "mu.npz"
    options = ("--precoding", precoding, "--method", "fractional", "--realisations", 20, "--json")
    done = run("infer", clusters, "-o", target, *options)
    assert done.exit_code == 0, done.output
    with np.load(clusters) as given, np.load(target) as found:
        first = found["se"]
        assert ((found["mu"] ** 2).sum(1) <= given["power"] * (1 + 1e-5)).all()
        assert not found["mu"][~given["serving"]].any()
        pairs = given["serving"].sum() / 2
    told = json.loads(done.stdout)
    data, pilots = (190 * pairs, 0) if precoding == "lp-mmse" else (9 * 2 * 190, 9 * 2 * 10)
    assert told["fronthaul_data"] == pytest.approx(data)
    assert told["fronthaul_pilots"] == pytest.approx(pilots)
    run("infer", clusters, "-o", tmp_path / "again.npz", *options)
    assert (tmp_path / "again.npz").read_bytes() == target.read_bytes()
    run("infer", clusters, "-o", tmp_path / "other.npz", *options, "--seed", 1)
    with np.load(tmp_path / "other.npz") as other:
        assert (other["se"] != first).all()
        np.testing.assert_allclose(other["se"], first, rtol=0.5)


def test_joint_precoding_takes_no_powers_of_pairs(clusters: Path, tmp_path: Path) -> None:
    for verb in (("infer", clusters, "-o", tmp_path / "mu.npz"), ("eval", clusters)):
        done = run(*verb, "--precoding", "p-mmse", "--method", "equal")
        assert done.exit_code == 2
        assert "choose --method fractional" in done.stderr
    assert not (tmp_path / "mu.npz").exists()


def test_more_realisations_than_memory_are_refused(clusters: Path, tmp_path: Path) -> None:
    options = ("--precoding", "lp-mmse", "--method", "equal", "--realisations", 10**8)
    done = run("infer", clusters, "-o", tmp_path / "mu.npz", *options)
    assert done.exit_code == 2
    assert "--realisations 1" in done.stderr


def test_eval_puts_precodings_side_by_side() -> None:
    drawn = ("--sizes", "5x9", "--count", 2, "--antennas", 4, "--clusters", "--pilots", 3)
    kinds = ("--precoding", "mr", "--precoding", "lp-mmse", "--precoding", "p-mmse")
    methods = ("--method", "fractional", "--method", "equal")
    done = run("eval", *drawn, *kinds, *methods, "--realisations", 30, "--quiet", "--json")
    assert done.exit_code == 0, done.output
    rows = {(row["precoding"], row["method"]): row for row in json.loads(done.stdout)["rows"]}
    assert set(rows) == {
        *(("mr", method) for method in ("fractional", "equal")),
        *(("lp-mmse", method) for method in ("fractional", "equal")),
        ("p-mmse", "fractional"),
    }
    local, plain = rows["lp-mmse", "fractional"], rows["mr", "fractional"]
    assert local["sum_se"] > 1.1 * plain["sum_se"]
    assert local["fronthaul_data"] == plain["fronthaul_data"]
    assert rows["p-mmse", "fractional"]["fronthaul_pilots"] == 9 * 4 * 3
    done = run("eval", *drawn, "--serving", 3)
    assert done.exit_code == 2


def test_bench_times_the_precoders_of_a_block() -> None:
    options = ("--sizes", "3x4", "--repeats", 2, "--no-socp", "--precoding", "p-mmse", "--json")
    found = json.loads(run("bench", *options).stdout)
    (row,) = found["blocks"]
    assert row["fronthaul_data"] == 4 * 4 * 190
    assert row["p50_ms"] > 0


def test_a_model_trained_for_satisfaction_needs_a_profile(clusters: Path, tmp_path: Path) -> None:
    options = ("--steps", 2, "--batch", 4, "--width", 4, "--layers", 2, "--quiet", "--json")
    done = run("train", "-o", tmp_path / "run", "--objective", "satisfaction", *options)
    assert done.exit_code == 0, done.output
    model = json.loads(done.stdout)["model"]
    done = run("infer", clusters, "-o", tmp_path / "mu.npz", "--model", model)
    assert done.exit_code == 2
    assert "--profile" in done.stderr
    done = run("export", "-o", tmp_path / "power.onnx", "--model", model)
    assert done.exit_code == 2
    assert "takes profiles" in done.stderr
    profile = tmp_path / "users.csv"
    lines = [f"{user},{0.1 * user},{0.5 + 0.2 * user}" for user in range(5)]
    profile.write_text("user,adequate,desired\n" + "\n".join(lines) + "\n")
    given = ("--model", model, "--profile", profile, "--method", "icgnn")
    done = run("eval", clusters, *given, "--method", "fractional", "--quiet", "--json")
    assert done.exit_code == 0, done.output
    fractional, learned = sorted(json.loads(done.stdout)["rows"], key=lambda row: row["method"])
    assert learned["satisfaction"] - 0.05 * learned["power"] >= (
        fractional["satisfaction"] - 0.05 * fractional["power"] - 1e-6
    )
    assert "users_at_0" in learned
    profile.write_text("user,adequate,desired\n0,0.1,0.2\n")
    done = run("infer", clusters, "-o", tmp_path / "mu.npz", *given)
    assert done.exit_code == 2
    assert "1 users, but the networks have 5" in done.stderr
