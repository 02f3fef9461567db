# SPDX-License-Identifier: Apache-2.0
"""What wl-* load to do their work: no module that it does not need."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

UNNEEDED = [
    *("matplotlib", "lightning_fabric", "sympy", "torch._dynamo", "torch._inductor"),
    *("torchvision", "timm", "ray", "pandas", "scipy", "torch_geometric", "cvxpy", "numba"),
    *("onnx", "onnxruntime", "PIL", "jinja2"),
]

COMPILED = {"numba", "scipy"}
"""What compiled loops bring; the second is imported by the first."""


def loaded(module: str, *calls: Sequence[object]) -> set[str]:
    """Which of these modules one process has loaded after these calls of a command."""
    code = f"""
import sys
from {module} import main
for call in {[[str(argument) for argument in call] for call in calls]}:
    main(call, standalone_mode=False)
print("loaded:", *sorted(set({UNNEEDED}) & set(sys.modules)))
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(answer.stdout.splitlines()[-1].split()[1:])


@pytest.fixture
def channels(tmp_path: Path) -> Path:
    path = tmp_path / "h.npz"
    H = np.random.default_rng(0).normal(size=(2, 3, 4, 2)).astype(np.float32)
    np.savez(path, H=H[..., 0] + 1j * H[..., 1], power=10.0, noise_power=1.0)
    return path


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "n.npz"
    beta = np.random.default_rng(0).uniform(0.5, 1.5, (2, 3, 4)).astype(np.float32)
    np.savez(path, beta=beta, gamma=0.5 * beta, power=1.0)
    return path


def calls(source: Path, folder: Path, *methods: str) -> list[tuple[object, ...]]:
    return [("infer", source, "-o", folder / f"{name}.npz", "--method", name) for name in methods]


def test_precoding_loads_no_more_than_it_runs(channels: Path, tmp_path: Path) -> None:
    asked = calls(channels, tmp_path, "icgnn", "rzf", "wmmse", "zf-wf")
    compared = ("eval", channels, "--method", "rzf")
    assert loaded("fieldfare.wireless.precoding.cli", *asked, compared) <= COMPILED
    assert all((tmp_path / f"{name}.npz").exists() for name in ("icgnn", "wmmse", "zf-wf"))


def test_power_loads_no_more_than_it_runs(network: Path, tmp_path: Path) -> None:
    asked = calls(network, tmp_path, "icgnn", "fractional", "sum-rate")
    assert not loaded("fieldfare.wireless.cell_free.cli", *asked)
    assert (tmp_path / "sum-rate.npz").exists()
    asked = calls(network, tmp_path, "max-min")
    assert loaded("fieldfare.wireless.cell_free.cli", *asked) <= COMPILED


def test_drawing_and_describing_load_no_more_than_they_run(tmp_path: Path) -> None:
    target = tmp_path / "h.npz"
    asked = ("gen", "-o", target, "--count", 2), ("info", target)
    assert not loaded("fieldfare.wireless.channel.cli", *asked)


def test_only_drawn_pictures_load_what_draws_them(channels: Path, tmp_path: Path) -> None:
    asked = ("eval", channels, "--method", "rzf", "-o", tmp_path / "report")
    assert "matplotlib" in loaded("fieldfare.wireless.precoding.cli", asked)
