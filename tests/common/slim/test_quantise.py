# SPDX-License-Identifier: Apache-2.0
"""Eight-bit ONNX files: a quarter of the size, small errors, nothing half-written."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fieldfare.common.efficiency.export import export_onnx
from fieldfare.common.errors import InputError, RunError
from fieldfare.common.slim import quantise

INSTALL = "fieldfare-example[onnx]"


class Convolutions(nn.Module):
    """(B, 3, 16, 16) -> (B, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 128, 3), nn.ReLU(), nn.Conv2d(128, 4, 3)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).mean(dim=(2, 3))


class Products(nn.Module):
    """(B, 32) -> (B, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(32, 512), nn.GELU(), nn.Linear(512, 256))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def exported(folder: Path, model: nn.Module, *shape: int) -> Path:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    target = folder / "whole.onnx"
    export_onnx(
        model,
        [torch.randn(2, *shape)],
        target,
        input_names=["x"],
        output_name="y",
        dynamic_shapes={"x": {0: torch.export.Dim.AUTO}},
        tolerance=1e-4,
        install=INSTALL,
    )
    return target


@pytest.fixture(scope="module")
def products(tmp_path_factory) -> Path:
    """`Products` in float32."""
    return exported(tmp_path_factory.mktemp("products"), Products(), 32)


def inputs(*shape: int) -> dict[str, np.ndarray]:
    return {"x": torch.randn(*shape).numpy()}


def test_static_for_convolutions(tmp_path):
    source = exported(tmp_path, Convolutions(), 3, 16, 16)
    calibration = [inputs(4, 3, 16, 16) for _ in range(3)]
    check = inputs(5, 3, 16, 16)
    found = quantise.quantise_static(
        source, tmp_path / "small.onnx", calibration, check, install=INSTALL
    )
    assert found.bytes_before == source.stat().st_size
    assert found.bytes_after == (tmp_path / "small.onnx").stat().st_size
    assert found.bytes_after < 0.32 * found.bytes_before
    assert 0 < found.error < 0.05
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.onnx", "whole.onnx"]


def test_dynamic_for_products(tmp_path, products):
    found = quantise.quantise_dynamic(
        products, tmp_path / "small.onnx", inputs(5, 32), install=INSTALL
    )
    assert found.bytes_after < 0.32 * found.bytes_before
    assert 0 < found.error < 0.05


def test_nothing_is_written_where_something_is_wrong(tmp_path, products, monkeypatch):
    with pytest.raises(InputError, match="at least one calibration input"):
        quantise.quantise_static(products, tmp_path / "s.onnx", [], inputs(1, 32), install=INSTALL)
    check = {"x": np.full((1, 32), np.nan, np.float32)}
    with pytest.raises(RunError, match="gives no numbers; nothing was written"):
        quantise.quantise_dynamic(products, tmp_path / "s.onnx", check, install=INSTALL)
    assert [p.name for p in tmp_path.iterdir()] == []
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install 'fieldfare-example\[onnx\]'"):
        quantise.quantise_dynamic(products, tmp_path / "s.onnx", check, install=INSTALL)
