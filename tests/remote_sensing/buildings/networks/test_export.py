# SPDX-License-Identifier: Apache-2.0
"""ONNX files agree with torch, or are not written."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fieldfare.common.errors import InputError, RunError
from fieldfare.remote_sensing.buildings.networks.building_network import (
    BuildingNetwork,
    NetworkConfig,
)
from fieldfare.remote_sensing.buildings.networks.export import export_onnx


@pytest.fixture
def network() -> BuildingNetwork:
    """Depth 1 of U-Net++, in training mode as training leaves it."""
    torch.manual_seed(0)
    return BuildingNetwork(NetworkConfig(), 1)


def test_file_gives_what_the_network_gives_for_any_batch(tmp_path, network):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    target = tmp_path / "l1.onnx"
    assert 0 <= export_onnx(network, target, tile=64) < 1e-4
    assert network.training
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    network.eval()
    for batch in (1, 3):
        image = torch.rand(batch, 3, 64, 64)
        with torch.inference_mode():
            expected = network(image).numpy()
        (found,) = session.run(["logits"], {"image": image.numpy()})
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["l1.onnx"]


def test_a_file_that_disagrees_is_not_kept(tmp_path, network, monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")

    def session(path, providers):
        assert Path(path).read_bytes() == b"onnx"
        image = SimpleNamespace(name="image", shape=["batch", 3, 64, 64])
        return SimpleNamespace(
            get_inputs=lambda: [image],
            run=lambda names, feed: [np.full((2, 2, 64, 64), 9, np.float32)],
        )

    monkeypatch.setattr("onnxruntime.InferenceSession", session)
    monkeypatch.setattr(
        "torch.onnx.export", lambda network, inputs, path, **_: Path(path).write_bytes(b"onnx")
    )
    with pytest.raises(RunError, match=r"m\.onnx: ONNX Runtime and torch differ by .*nothing was"):
        export_onnx(network, tmp_path / "m.onnx", tile=64)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["onnxruntime", "onnxscript"])
def test_missing_packages_are_named(tmp_path, network, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"pip install 'fieldfare-remote-sensing\[onnx\]'"):
        export_onnx(network, tmp_path / "m.onnx")


@pytest.mark.parametrize("tile", [0, 32, 100])
def test_tile_must_be_a_multiple_of_64(tmp_path, network, tile):
    with pytest.raises(InputError, match=f"--tile {tile}: must be a multiple of 64"):
        export_onnx(network, tmp_path / "m.onnx", tile=tile)
