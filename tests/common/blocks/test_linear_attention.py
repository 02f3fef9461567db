# SPDX-License-Identifier: Apache-2.0
"""Simplified linear attention: the published layer, both orders, one to three dimensions."""

import pytest
import torch
from published_blocks import assert_near, part, published
from torch.nn.functional import normalize

from fieldfare.common.blocks import LinearAttention, linear_attention

SIZES = {1: (6,), 2: (3, 4), 3: (2, 3, 2)}
NAMES = {"dwc": "local", "positional_encoding": "position"}


def attention(given, name: str, side: int) -> LinearAttention:
    module = LinearAttention(24, 3, (side, side))
    state = part(given, f"{name}.sd.")
    for theirs, ours in NAMES.items():
        state = {k.replace(theirs, ours): t for k, t in state.items()}
    module.load_state_dict(state)
    return module


@pytest.mark.parametrize(("name", "side"), [("large", 7), ("small", 3)])
def test_outputs_and_gradients_are_the_published_ones(name, side):
    given = published("slab/attention")
    module = attention(given, name, side)
    x = given[f"{name}.in.x"].clone().requires_grad_()
    y = module(x)
    assert_near(y, given[f"{name}.out.y"], 2e-6)
    y.backward(given[f"{name}.grad.cotangent"])
    assert_near(x.grad, given[f"{name}.grad.x"], 1e-5)
    assert_near(module.qkv.weight.grad, given[f"{name}.grad.qkv.weight"], 1e-5)
    assert_near(module.position.grad, given[f"{name}.grad.positional_encoding"], 1e-5)


@pytest.mark.parametrize(("tokens", "width"), [(50, 4), (4, 50), (8, 8)])
def test_both_orders_of_the_product_give_the_same(tokens, width):
    q, k, v = (torch.randn(2, 3, tokens, width, dtype=torch.float64) for _ in range(3))
    pairs = linear_attention(q.relu(), k.relu(), v, pairs=True)
    values = linear_attention(q.relu(), k.relu(), v, pairs=False)
    torch.testing.assert_close(pairs, values, rtol=1e-12, atol=1e-12)


def test_the_output_is_a_weighted_mean_of_the_values():
    q, k = torch.rand(1, 5, 3) + 0.1, torch.rand(1, 5, 3) + 0.1
    ones = torch.ones(1, 5, 2)
    torch.testing.assert_close(linear_attention(q, k, ones), ones, rtol=0, atol=1e-5)


def test_a_query_that_meets_no_key_gets_nothing():
    q, k = torch.eye(2)[None, :1], torch.eye(2)[None, 1:]
    assert linear_attention(q, k, torch.ones(1, 1, 4)).tolist() == [[[0, 0, 0, 0]]]


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_windows_have_one_to_three_sides(ndim):
    size = SIZES[ndim]
    module = LinearAttention(8, 2, size)
    x = normalize(torch.randn(2, module.position.shape[1], 8), dim=-1)
    assert module(x).shape == x.shape


def test_a_volume_of_one_slice_gives_what_the_image_gives():
    flat, deep = LinearAttention(8, 2, (3, 4)), LinearAttention(8, 2, (1, 3, 4))
    state = flat.state_dict()
    kernels = torch.zeros_like(deep.local.weight)
    kernels[:, :, 2] = state["local.weight"]
    deep.load_state_dict(state | {"local.weight": kernels})
    x = torch.randn(2, 12, 8)
    torch.testing.assert_close(deep(x), flat(x), rtol=1e-5, atol=1e-6)


def test_autocast_leaves_the_sums_in_float32():
    module, x = LinearAttention(8, 2, (3, 4)), torch.randn(2, 12, 8) * 100
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x)
    assert y.dtype == torch.bfloat16
    assert torch.isfinite(y).all()


def test_another_number_of_tokens_and_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"window of \(3, 4\)"):
        LinearAttention(8, 2, (3, 4))(torch.randn(1, 11, 8))
    with pytest.raises(ValueError, match="heads 3"):
        LinearAttention(8, 3, (3, 4))
