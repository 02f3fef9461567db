# SPDX-License-Identifier: Apache-2.0
"""What wl-* load to do their work: no module that it does not need."""

import subprocess
import sys
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


def loaded(module: str, *arguments: object) -> list[str]:
    """Which of these modules a command has loaded when it ends."""
    code = f"""
import sys
from {module} import main
try:
    main()
finally:
    print("loaded:", *sorted(set({UNNEEDED}) & set(sys.modules)))
"""
    answer = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout.splitlines()[-1].split()[1:]


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


@pytest.mark.parametrize("method", ["icgnn", "rzf", "wmmse", "zf-wf"])
def test_precoding_loads_no_more_than_it_runs(channels: Path, method: str, tmp_path: Path) -> None:
    module, target = "fieldfare.wireless.precoding.cli", tmp_path / "w.npz"
    found = loaded(module, "infer", channels, "-o", target, "--method", method)
    assert set(found) <= COMPILED
    assert target.exists()


@pytest.mark.parametrize("method", ["icgnn", "fractional", "max-min-gradient", "sum-rate"])
def test_power_loads_no_more_than_it_runs(network: Path, method: str, tmp_path: Path) -> None:
    module, target = "fieldfare.wireless.cell_free.cli", tmp_path / "mu.npz"
    assert not loaded(module, "infer", network, "-o", target, "--method", method)
    assert target.exists()


def test_drawing_and_describing_load_no_more_than_they_run(tmp_path: Path) -> None:
    module, target = "fieldfare.wireless.channel.cli", tmp_path / "h.npz"
    assert not loaded(module, "gen", "-o", target, "--count", 2)
    assert not loaded(module, "info", target)


def test_comparing_loads_no_pictures_unless_they_are_drawn(channels: Path, tmp_path: Path) -> None:
    arguments = ("fieldfare.wireless.precoding.cli", "eval", channels, "--method", "rzf")
    assert set(loaded(*arguments)) <= COMPILED
    assert "matplotlib" in loaded(*arguments, "-o", tmp_path / "report")
