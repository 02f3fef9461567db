# SPDX-License-Identifier: Apache-2.0
"""CHESS thresholds: published numbers, one token as in a batch, less error at less sparsity."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import silu

from fieldfare.common.slim import sparsify

REFERENCE = Path(__file__).parents[2] / "reference" / "chess"


@pytest.fixture(scope="module")
def given():
    return load_file(REFERENCE / "gated_ffn.safetensors")


def layers(given) -> list[nn.Linear]:
    found = []
    for name in ("gate", "up", "down"):
        own = nn.Linear(*given[name].T.shape, bias=False)
        own.weight.data.copy_(given[name])
        found.append(own)
    return found


def sequences(given):
    return given["calibration"].split(given["lengths"].tolist())


def error(given, y) -> float:
    return float((y - given["dense"]).norm() / given["dense"].norm())


@torch.no_grad()
def test_thresholds_and_outputs_are_the_published_ones(given):
    gate, up, down = layers(given)
    own = sparsify.sparsify_gated(gate, up, down, sequences(given), 0.5)
    near = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(own.thresholds, given["channel_threshold"], **near)
    gates = [silu(gate(x)) for x in sequences(given)]
    found = sparsify.channel_thresholds(gates, [up(x) for x in sequences(given)], 0.5)
    assert found.importance == pytest.approx(float(given["importance_threshold"]), rel=1e-5)
    y = own(given["test"])
    torch.testing.assert_close(y, given["channel_output"], **near)
    assert own.kept(given["test"]) == pytest.approx(float(given["kept_channel"]), abs=1e-6)
    assert error(given, y) == pytest.approx(0.1265, abs=1e-4)
    assert own.macs(given["test"]) == 17 * 12 * 32 + round(float(given["kept_channel"]) * 544) * 24


@torch.no_grad()
def test_one_threshold_for_the_layer_is_the_published_one_and_worse(given):
    gate, up, down = layers(given)
    uniform = sparsify.mean_order_statistic([silu(gate(x)).abs() for x in sequences(given)], 0.5)
    assert uniform == pytest.approx(float(given["uniform_threshold"]), rel=1e-5)
    y = down(sparsify.keep_above(silu(gate(given["test"])), uniform) * up(given["test"]))
    torch.testing.assert_close(y, given["uniform_output"], rtol=1e-5, atol=1e-5)
    assert error(given, y) == pytest.approx(0.1828, abs=1e-4)
    inputs = sparsify.mean_order_statistic([x.abs() for x in sequences(given)], 0.5)
    assert inputs == pytest.approx(float(given["attention_input_threshold"]), rel=1e-5)


@torch.no_grad()
def test_the_error_falls_with_the_sparsity(given):
    errors = [
        error(given, sparsify.sparsify_gated(*layers(given), sequences(given), q)(given["test"]))
        for q in (0.9, 0.7, 0.5, 0.3, 0.1)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02


@pytest.mark.parametrize("bias", [True, False])
def test_a_single_token_skips_and_gives_the_same(bias):
    gate, up, down = nn.Linear(8, 16, bias), nn.Linear(8, 16, bias), nn.Linear(16, 8, bias)
    x = torch.randn(3, 8)
    own = sparsify.sparsify_gated(gate, up, down, [torch.randn(50, 8)], 0.6)
    with torch.no_grad():
        batch = own(x)
        for row, expected in zip(x, batch, strict=True):
            torch.testing.assert_close(own(row), expected, rtol=1e-5, atol=1e-6)
    assert 0 < own.kept(x) < 0.7


def test_a_channel_that_is_always_zero_is_dropped_and_few_values_are_refused():
    gates, ups = torch.rand(20, 3) + 0.1, torch.rand(20, 3) + 0.1
    ups[:, 1] = 0
    found = sparsify.channel_thresholds([gates], [ups], 0.5)
    assert found.channels[1] == torch.inf
    assert not found.channels.isnan().any()
    assert (sparsify.keep_above(gates, found.channels)[:, 1] == 0).all()
    with pytest.raises(ValueError, match="1 values are too few"):
        sparsify.order_statistic(torch.ones(1), 0.5)
    with pytest.raises(ValueError, match="at least one sequence"):
        sparsify.mean_order_statistic([], 0.5)
