# SPDX-License-Identifier: Apache-2.0
"""Single-Path NAS's superkernel: the authors' masks, decisions and gradients."""

import json

import pytest
import torch
from published_search import REFERENCE, near, tensors

from fieldfare.common.search.superkernel import Superkernel, runtime

FILES = REFERENCE / "single_path_superkernel"
TOLD = json.loads((FILES / "expected.json").read_text())
NAMES = {"t5x5": "ring_threshold", "t50c": "first_threshold", "t100c": "second_threshold"}


def ours(hwc: torch.Tensor) -> torch.Tensor:
    """(h, w, C, 1) -> (C, 1, h, w)."""
    return hwc.permute(2, 3, 0, 1).contiguous()


@pytest.mark.parametrize("case", TOLD["cases"])
def test_masks_decisions_and_gradients_are_the_published_ones(case: str) -> None:
    found, told = tensors(FILES / "expected.safetensors"), TOLD["cases"][case]
    layer = Superkernel(ours(found["kernel_hwc1"]), skippable=TOLD["stride"] == 1)
    for theirs, value in told["thresholds"].items():
        getattr(layer, NAMES[theirs]).data.fill_(value)
    masked, decisions = layer.decide()
    near(masked, ours(found[f"{case}.masked"]), 1e-6)
    assert [float(d) for d in decisions] == [told["d5x5"], told["d50c"], told["d100c"]]
    _, small, half, whole, _ = TOLD["runtimes_ms"]
    time = runtime(decisions, small, half, whole)
    assert float(time) == pytest.approx(told["runtime"], rel=1e-5, abs=1e-9)
    loss = (masked * ours(found["upstream"])).sum() + 0.05 * (time + 1e-12).log()
    loss.backward()
    near(layer.weight.grad, ours(found[f"{case}.kernel_grad"]), 1e-5)
    for theirs, name in NAMES.items():
        gradient = float(getattr(layer, name).grad)
        assert gradient == pytest.approx(told["threshold_grads"][theirs], rel=1e-4, abs=1e-12)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_what_is_chosen_is_what_the_mask_leaves(axes: int) -> None:
    torch.manual_seed(0)
    layer = Superkernel(torch.randn(6, 1, *[5] * axes))
    assert layer.choice() == (5, 1.0)
    layer.ring_threshold.data.fill_(1e6)
    layer.second_threshold.data.fill_(1e6)
    assert layer.choice() == (3, 0.5)
    masked = layer()
    middle = (slice(None), slice(None), *[slice(1, -1)] * axes)
    assert int(masked.count_nonzero()) == int(masked[middle][:3].count_nonzero()) == 3 * 3**axes
    layer.first_threshold.data.fill_(1e6)
    assert layer.choice() == (0, 0.0)
    assert not layer().any()


def test_a_layer_with_a_stride_stays() -> None:
    torch.manual_seed(0)
    layer = Superkernel(torch.randn(4, 1, 5, 5), skippable=False)
    layer.first_threshold.data.fill_(1e6)
    layer().sum().backward()
    assert layer.first_threshold.grad is None
    assert layer.choice()[0] == 5


def test_normalised_thresholds_do_not_depend_on_the_size() -> None:
    for axes in (1, 2, 3):
        layer = Superkernel(torch.ones(4, 1, *[5] * axes), normalised=True)
        layer.second_threshold.data.fill_(0.99)
        assert layer.choice()[1] == 1.0
        layer.second_threshold.data.fill_(1.01)
        assert layer.choice()[1] == 0.5
