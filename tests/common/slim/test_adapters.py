# SPDX-License-Identifier: Apache-2.0
"""Structured pruning adapters: the published layers, nothing changed at first, fused and pruned."""

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fieldfare.common.blocks import convolution
from fieldfare.common.slim import adapters

REFERENCE = Path(__file__).parents[2] / "reference" / "structured_adapters"
CONFIG = json.loads((REFERENCE / "expected.json").read_text())
KINDS = ("linear", "conv1d", "conv2d", "conv3d")


def layer(weight: torch.Tensor) -> nn.Module:
    outputs, inputs, *kernel = weight.shape
    if not kernel:
        return nn.Linear(inputs, outputs)
    return convolution(len(kernel), inputs, outputs, tuple(kernel), padding=kernel[0] // 2)


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_fused_weights_are_the_published_ones(kind):
    tensors = load_file(REFERENCE / "expected.safetensors")
    given = {k.removeprefix(f"{kind}."): t for k, t in tensors.items() if k.startswith(kind)}
    own = layer(given["weight"])
    with torch.no_grad():
        own.weight.copy_(given["weight"])
        own.bias.copy_(given["bias"])
        count = adapters.adapt(own, CONFIG["rank"])
        change = own.parametrizations.weight[0]
        change.cols.copy_(given["adapter.cols"][0])
        change.rows.copy_(given["adapter.rows"][0])
    trained = CONFIG[f"{kind}.trainable"]
    rank = CONFIG["rank"]
    assert count == rank * (given["weight"].shape[0] + given["weight"].shape[1]) + len(own.bias)
    assert sorted(tuple(p.shape) for p in own.parameters() if p.requires_grad) == sorted(
        tuple(shape[-2:]) for shape in trained.values()
    )
    near = {"rtol": 0, "atol": 1e-5}
    with torch.no_grad():
        y = own(given["x"])
        torch.testing.assert_close(y, given["y"], **near)
        adapters.fuse_adapters(own)
        torch.testing.assert_close(own.weight, given["fused_weight"], **near)
        torch.testing.assert_close(own(given["x"]), y, **near)
    assert "weight" in dict(own.named_parameters())


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8, padding=1),  # has no adapter
        nn.Conv2d(8, 6, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 2),
    )


def test_a_new_adapter_changes_nothing_and_trains_only_itself_and_biases():
    model = network().eval()
    x = torch.randn(2, 3, 5, 5)
    before = model(x)
    state = copy.deepcopy(model.state_dict())
    count = adapters.adapt(model, 2)
    assert torch.equal(model(x), before)
    assert count == 2 * (8 + 3) + 8 + 2 * (6 + 8) + 6 + 2 * (2 + 6) + 2
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    after = model(x)
    assert not torch.allclose(after, before)
    assert torch.equal(model[0].parametrizations.weight.original, state["0.weight"])
    adapters.fuse_adapters(model)
    torch.testing.assert_close(model(x), after)
    assert set(model.state_dict()) == set(state)
    changed = model[0].weight != state["0.weight"]
    assert changed[:, :, 1, 1].all()
    assert not changed[:, :, 0].any()  # the centre tap only


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("adapted", [True, False])
def test_pruning_keeps_rows_and_columns_with_the_weight(kind, adapted):
    shape = (6, 4, *[3] * (0 if kind == "linear" else int(kind[4])))
    own = layer(torch.empty(shape))
    x = torch.randn(2, 4, *[5] * (len(shape) - 2))
    if adapted:
        adapters.adapt(own, 2)
        nn.init.normal_(own.parametrizations.weight[0].cols)
    outputs, inputs = torch.tensor([0, 3, 5]), torch.tensor([1, 2])
    masked = x.clone()
    masked[:, [0, 3]] = 0
    expected = own(masked)[:, outputs]
    adapters.prune_channels(own, outputs=outputs, inputs=inputs)
    torch.testing.assert_close(own(x[:, inputs]), expected)
    if adapted:
        adapters.fuse_adapters(own)
        torch.testing.assert_close(own(x[:, inputs]), expected)
    assert own.weight.shape[:2] == (3, 2)


def test_what_takes_no_adapter_is_refused():
    with pytest.raises(ValueError, match="rank 0: must be at least 1"):
        adapters.adapt(network(), 0)
    with pytest.raises(ValueError, match="a grouped convolution cannot be pruned"):
        adapters.prune_channels(nn.Conv2d(4, 4, 3, groups=2), outputs=torch.tensor([0]))
    with pytest.raises(ValueError, match="no layer that takes an adapter"):
        adapters.adapt(nn.Conv2d(4, 4, 2), 1)
