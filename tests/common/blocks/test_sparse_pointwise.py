# SPDX-License-Identifier: Apache-2.0
"""SparsePointwise gives what the dense layer gives, wherever it runs, and is used where it pays."""

import copy
import importlib.util

import pytest
import torch
from torch import nn

pytest.importorskip("numba", reason="NOT CHECKED: numba is not installed")

from fieldfare.common.blocks import sparse_pointwise
from fieldfare.common.blocks.nd import convolution
from fieldfare.common.blocks.sparse_blocks import ROWS, pack, unpack
from fieldfare.common.blocks.sparse_pointwise import SparsePointwise, is_pointwise, sparsify
from fieldfare.common.errors import InputError

SIZES = {1: (70,), 2: (9, 7), 3: (5, 4, 6)}


def pruned(channels: int, outputs: int, *, ndim: int = 2, density: float = 0.3, bias: bool = True):
    """A 1x1 convolution with that share of its blocks."""
    conv = convolution(ndim, channels, outputs, 1, bias=bias)
    kept = torch.rand(-(-outputs // ROWS), channels) < density
    mask = kept.repeat_interleave(ROWS, dim=0)[:outputs]
    conv.weight.data.mul_(mask.view(outputs, channels, *[1] * ndim))
    return conv


def assert_same(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("outputs", [8, 6, 1])
@pytest.mark.parametrize("bias", [False, True])
def test_the_layer_gives_what_the_masked_dense_one_gives(packed, ndim, outputs, bias):
    conv = pruned(12, outputs, ndim=ndim, bias=bias)
    x = torch.randn(3, 12, *SIZES[ndim])
    with torch.inference_mode():
        assert_same(SparsePointwise(conv, packed=packed)(x), conv(x))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("pixels", [1, 31, 32, 33, 64, 200])
def test_any_number_of_pixels(packed, pixels):
    conv, x = pruned(5, 9, ndim=1), torch.randn(2, 5, pixels)
    with torch.inference_mode():
        assert_same(SparsePointwise(conv, packed=packed)(x), conv(x))


def test_no_pixels_and_no_images():
    conv = SparsePointwise(pruned(5, 9, ndim=1))
    assert conv(torch.zeros(0, 5, 7)).shape == (0, 9, 7)
    assert conv(torch.zeros(2, 5, 0)).shape == (2, 9, 0)


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_nothing_and_everything_kept(density):
    conv, x = pruned(7, 10, density=density), torch.randn(2, 7, 6, 6)
    with torch.inference_mode():
        assert_same(SparsePointwise(conv)(x), conv(x))


def test_weights_without_blocks_are_right_as_well():
    conv = nn.Conv2d(16, 16, 1)
    conv.weight.data.mul_(torch.rand(16, 16, 1, 1) < 0.1)
    x = torch.randn(1, 16, 5, 9)
    assert_same(SparsePointwise(conv)(x), conv(x).detach())


def test_threads_change_nothing(monkeypatch):
    layer, x = SparsePointwise(pruned(12, 8)), torch.randn(3, 12, 9, 17)
    found = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(layer(x))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_memory_format_of_the_input_does_not_matter():
    layer, x = SparsePointwise(pruned(12, 8)), torch.randn(3, 12, 9, 7)
    assert torch.equal(layer(x.to(memory_format=torch.channels_last)), layer(x))
    assert torch.equal(layer(x[:, :, ::2]), layer(x[:, :, ::2].contiguous()))


def test_gradients_half_precision_and_export_take_the_dense_form():
    conv, x = pruned(12, 8), torch.randn(2, 12, 5, 5, requires_grad=True)
    layer = SparsePointwise(conv)
    (ours,) = torch.autograd.grad(layer(x).square().sum(), x)
    (theirs,) = torch.autograd.grad(conv(x).square().sum(), x)
    assert_same(ours, theirs)
    with torch.no_grad():
        assert layer.double()(x.double()).dtype == torch.float64
        with torch.autocast("cpu", torch.bfloat16):
            assert layer.float()(x).dtype == torch.bfloat16
        exported = torch.export.export(layer, (x,)).module()
        assert_same(exported(x * 2), conv(x * 2))


def test_the_packed_matrix_unpacks_to_itself():
    matrix = torch.randn(10, 7) * (torch.rand(10, 7) < 0.2)
    matrix[4:8] = 0
    blocks = pack(matrix)
    assert torch.equal(unpack(blocks, 10, 7), matrix)
    assert (blocks.starts.diff() > 0).all()


def test_dense_gives_the_convolution_back():
    conv = pruned(12, 10, ndim=3)
    again = SparsePointwise(conv).dense()
    assert torch.equal(again.weight, conv.weight)
    assert torch.equal(again.bias, conv.bias)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 1, stride=2),
        nn.Conv2d(4, 4, 1, groups=2),
        nn.Conv2d(4, 4, 1, padding=1),
        nn.ConvTranspose2d(4, 4, 1),
        nn.Linear(4, 4),
    ],
)
def test_other_layers_are_refused(conv):
    assert not is_pointwise(conv)
    with pytest.raises(ValueError, match="not a 1x1 convolution"):
        SparsePointwise(conv)


def test_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="12 channels wanted"):
        SparsePointwise(pruned(12, 8))(torch.zeros(1, 8, 3, 3))


def test_without_numba_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'fieldfare-common\[sparse\]'"):
        SparsePointwise(pruned(4, 4))


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        pruned(16, 24),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.Sequential(pruned(24, 8), nn.Conv2d(8, 8, 1)),
    )


@pytest.mark.parametrize("faster", [True, False])
def test_a_layer_is_sparse_only_where_that_was_measured_to_be_faster(monkeypatch, faster):
    def times(calls, x, rounds):
        return [1.0, 0.8 if faster else 0.95, 0.5 if faster else 1.0]

    monkeypatch.setattr(sparse_pointwise, "_shortest", times)
    model, x = network(), torch.randn(2, 3, 8, 8)
    plain = copy.deepcopy(model).eval()
    choices = sparsify(model, x)
    assert [(choice.name, choice.used) for choice in choices] == [("1", faster), ("4.0", faster)]
    assert isinstance(model[1], SparsePointwise) == faster
    assert isinstance(model[4][1], nn.Conv2d)  # too few zeros to be worth a measurement
    assert model.training
    if faster:
        assert model[1].packed
    with torch.inference_mode():
        assert_same(model.eval()(x), plain(x))
    sparsify(model, x)
    with torch.inference_mode():
        assert_same(model(x), plain(x))


def test_the_measurement_itself_runs_each_form():
    model, x = network(), torch.randn(1, 3, 8, 8)
    first, second = sparsify(model, x, rounds=2)
    for choice in (first, second):
        assert 0 < choice.density < 0.5
        assert choice.dense > 0
        assert choice.sparse > 0
        assert choice.used == (choice.dense >= 1.1 * choice.sparse)
