# SPDX-License-Identifier: Apache-2.0
"""ONNX files give what torch gives, or are not written."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fieldfare.common.efficiency.export import export_onnx
from fieldfare.common.errors import InputError, RunError


class Mixed(nn.Module):
    """Two inputs, and a layer that training and evaluation see differently."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.convolution = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, image: Tensor, time: Tensor) -> Tensor:
        return self.convolution(self.norm(image)) * time


@pytest.fixture
def network() -> Mixed:
    torch.manual_seed(0)
    return Mixed().to(memory_format=torch.channels_last)


def inputs(batch: int = 2) -> list[Tensor]:
    return [torch.rand(batch, 3, 8, 8), torch.tensor([2.0])]


def export(network: nn.Module, target: Path, tolerance: float = 1e-4) -> float:
    return export_onnx(
        network,
        inputs(),
        target,
        input_names=["image", "time"],
        output_name="result",
        dynamic_shapes={"image": {0: "batch"}, "time": None},
        tolerance=tolerance,
        install="fieldfare-example[onnx]",
    )


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """An ONNX Runtime that is wrong by `off` everywhere, on a graph of any `batch` or of one."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    answer = {"off": 0.0}
    traced: list[nn.Module] = []

    def write(network, inputs, path, **_):
        traced.append(network)
        Path(path).write_bytes(b"onnx")

    def session(path, providers):
        assert Path(path).read_bytes() == b"onnx"

        def run(names, feed):
            assert names == ["result"]
            tensors = (torch.from_numpy(feed[name]) for name in ("image", "time"))
            with torch.inference_mode():
                return [traced[-1](*tensors).numpy() + np.float32(answer["off"])]

        shapes = {"image": [answer.get("batch", "batch"), 3, 8, 8], "time": [1]}
        given = [SimpleNamespace(name=name, shape=shape) for name, shape in shapes.items()]
        return SimpleNamespace(run=run, get_inputs=lambda: given)

    monkeypatch.setattr("torch.onnx.export", write)
    monkeypatch.setattr("onnxruntime.InferenceSession", session)
    return answer


def test_the_file_gives_what_the_network_gives_for_any_batch(tmp_path, network):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    target = tmp_path / "m.onnx"
    assert 0 <= export(network, target) < 1e-5
    assert network.training
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    network.eval()
    for batch in (1, 5):
        image, time = inputs(batch)
        with torch.inference_mode():
            expected = network(image, time).numpy()
        feed = {"image": image.numpy(), "time": time.numpy()}
        (found,) = session.run(["result"], feed)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_an_axis_that_tracing_fixed_is_told(tmp_path, network, wrong):
    wrong["batch"] = 2
    with pytest.raises(RunError, match=r"m\.onnx: axis 0 of image became 2 for good"):
        export(network, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_tolerance_is_a_share_of_the_largest_output_and_at_least_of_1(tmp_path, network, wrong):
    wrong["off"] = 0.009
    assert export(network, tmp_path / "small.onnx", 0.01) == pytest.approx(0.009, rel=1e-3)
    network.convolution.bias.data += 1000
    wrong["off"] = 15.0
    export(network, tmp_path / "large.onnx", 0.01)
    wrong["off"] = 25.0
    with pytest.raises(RunError, match="differ by 25, more than 2"):
        export(network, tmp_path / "wrong.onnx", 0.01)


@pytest.mark.parametrize("off", [2.0, float("nan"), float("inf")])
def test_a_file_that_disagrees_is_not_kept(tmp_path, network, wrong, off):
    wrong["off"] = off
    with pytest.raises(RunError, match=r"m\.onnx: ONNX Runtime and torch differ .*nothing was"):
        export(network, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["onnxruntime", "onnxscript"])
def test_missing_packages_are_named(tmp_path, network, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"pip install 'fieldfare-example\[onnx\]'"):
        export(network, tmp_path / "m.onnx")
