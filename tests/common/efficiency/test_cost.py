# SPDX-License-Identifier: Apache-2.0
"""cost: against hand counts and published ones; the model stays as it was."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fieldfare.common.efficiency import Cost, cost


class Function(nn.Module):
    """A module of one linear layer that then calls a function."""

    def __init__(self, function, width: int = 16) -> None:
        super().__init__()
        self.linear, self.function = nn.Linear(width, width, bias=False), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.linear(x))


class Constant(Function):
    """The same, with a tensor that is no buffer: it cannot run on the meta device."""

    def __init__(self, function, width: int = 16) -> None:
        super().__init__(function, width)
        self.shift = torch.ones(width)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.shift


def test_two_linear_layers_by_hand():
    net = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))
    # Saved: the input (4 x 10) and the ReLU's output (4 x 20), which is the second layer's input.
    # Alive at most: input, hidden, ReLU's output. Four bytes a number.
    assert cost(net, (4, 10)) == Cost(
        parameters=10 * 20 + 20 + 20 * 5 + 5,
        macs=4 * (10 * 20 + 20 * 5),
        activation_bytes=4 * (40 + 80),
        inference_bytes=4 * (40 + 80 + 80),
    )


@pytest.mark.parametrize(
    ("module", "shape", "macs"),
    [
        (nn.Conv1d(4, 6, 3), (2, 4, 10), 2 * 8 * 6 * 4 * 3),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (1, 4, 9, 9), 25 * 6 * 2 * 9),
        (nn.Conv3d(2, 3, 2), (1, 2, 4, 4, 4), 27 * 3 * 2 * 8),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (1, 4, 5, 5), 25 * 4 * 6 * 4),
        (nn.BatchNorm2d(4), (1, 4, 9, 9), 0),
        (nn.Upsample(scale_factor=2), (1, 4, 9, 9), 0),
        (nn.LSTM(8, 16), (5, 2, 8), 5 * 2 * 4 * 16 * (8 + 16)),
        (Function(lambda x: x @ x.mT), (3, 7, 16), 3 * 7 * 16 * 16 + 3 * 7 * 7 * 16),
    ],
)
def test_macs_by_hand(module, shape, macs):
    assert cost(module, shape).macs == macs


@pytest.mark.parametrize("kind", [Function, Constant])
def test_attention_is_counted_on_meta_and_for_real(kind):
    net = kind(lambda x: F.scaled_dot_product_attention(x, x, x))
    assert cost(net, (2, 4, 64, 16)).macs == 2 * 4 * (64 * 16 * 16 + 2 * 64 * 64 * 16)


@pytest.mark.parametrize("kind", [Function, Constant])
def test_fused_transformer_layer_is_counted_on_meta_and_for_real(kind):
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    per_token = 16 * 16 + 3 * 16 * 16 + 16 * 16 + 2 * 16 * 32
    assert cost(kind(layer), (2, 8, 16)).macs == 2 * (8 * per_token + 2 * 8 * 8 * 16)


def test_activation_in_place_is_counted_once():
    shape, floats = (2, 3, 16, 16), 2 * 8 * 16 * 16
    layers = [nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1)]
    apart = cost(nn.Sequential(*layers), shape)
    layers[1] = nn.ReLU(inplace=True)
    inside = cost(nn.Sequential(*layers), shape)
    assert apart.activation_bytes == inside.activation_bytes == 4 * (2 * 3 * 16 * 16 + floats)
    assert apart.inference_bytes - inside.inference_bytes == 4 * floats - 4 * 2 * 4 * 16 * 16


def test_checkpointing_saves_activation_bytes():
    block = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
    plain = cost(Function(block), (8, 16))
    saving = cost(Function(lambda x: checkpoint(block, x, use_reentrant=False)), (8, 16))
    assert saving.activation_bytes < plain.activation_bytes


def test_frozen_model_keeps_nothing():
    assert cost(nn.Linear(4, 4).requires_grad_(False), (1, 4)).activation_bytes == 0


def test_shared_parameters_count_once():
    linear = nn.Linear(4, 4)
    assert cost(nn.Sequential(linear, linear), (1, 4)).parameters == 20


def test_tensors_and_shapes_may_be_mixed():
    embed = nn.Embedding(10, 8)

    class Pick(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = embed

        def forward(self, index: Tensor, x: Tensor) -> Tensor:
            return self.embed(index) @ x

    assert cost(Pick(), torch.tensor([[1, 2, 3]]), (1, 8, 5)).macs == 3 * 8 * 5


def test_state_stays_as_it_was():
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cache: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            self.cache = torch.ones(x.shape[-1], device=x.device)
            return x * self.cache

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), Caching())
    net[2].eval()
    for model in (net, nn.Sequential(net, Constant(lambda x: x, 6))):
        before = {key: value.clone() for key, value in model.state_dict().items()}
        flags = [module.training for module in model.modules()]
        noise = torch.get_rng_state()
        cost(model, (2, 3, 8, 8))
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
        assert [module.training for module in model.modules()] == flags
        assert torch.equal(torch.get_rng_state(), noise)
        assert net[3].cache is None
        assert all(parameter.grad is None for parameter in model.parameters())


def test_wrong_input_is_the_models_own_error():
    with pytest.raises(RuntimeError, match=r"mat1|shape|size"):
        cost(nn.Linear(4, 4), (1, 5))


# Counts of timm 1.0.31; the paper prints 5.4 M and 219 M.
def test_mobilenetv3_large_100_has_5_483_032_parameters_and_216_6_mmacs():
    counted = cost(timm.create_model("mobilenetv3_large_100"), (1, 3, 224, 224))
    assert counted.parameters == 5_483_032
    assert round(counted.macs / 1e6, 1) == 216.6


def test_efficientnet_b4_has_19_341_616_parameters_and_4_394_gmacs_at_380():
    with torch.device("meta"):
        model = timm.create_model("efficientnet_b4")
    counted = cost(model, (1, 3, 380, 380))
    assert counted.parameters == 19_341_616
    assert round(counted.macs / 1e9, 3) == 4.394
