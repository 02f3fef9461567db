# SPDX-License-Identifier: Apache-2.0
"""Tensors that published networks computed, and how near ours must come."""

from collections.abc import Callable
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fieldfare.common.efficiency import Cost, cost

REFERENCE = Path(__file__).parents[2] / "reference"


def counted(name: str, size: int = 224, **options: object) -> Cost:
    """Parameters and multiply-accumulates of a timm model on one RGB image, without its memory."""
    with torch.device("meta"):
        return cost(timm.create_model(name, **options), (1, 3, size, size))


def published(name: str) -> dict[str, Tensor]:
    """All tensors of a file below tests/reference, as `slab/swin_tiny`."""
    return load_file(REFERENCE / f"{name}.safetensors")


def load(
    model: nn.Module,
    tensors: dict[str, Tensor],
    from_published: Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]] | None = None,
    prefix: str = "sd.",
) -> nn.Module:
    """The model in evaluation mode with the published weights, every one of them."""
    state = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
    if from_published is not None:
        state = from_published(state, model)
    missing, unexpected = model.load_state_dict(state, strict=False)
    counters = ("num_batches_tracked", ".done")  # of batch norms and of PRepBN
    assert not unexpected
    assert [name for name in missing if not name.endswith(counters)] == []
    return model.eval()


def outputs(model: nn.Module, x: Tensor, modules: list[str]) -> dict[str, Tensor]:
    """What the named modules give on the way, and the result as `""`."""
    seen: dict[str, Tensor] = {}
    for name in modules:
        hook = lambda module, inputs, output, name=name: seen.update({name: output})  # noqa: E731
        model.get_submodule(name).register_forward_hook(hook)
    seen[""] = model(x)
    return seen


def assert_near(ours: Tensor, theirs: Tensor, tolerance: float = 1e-4) -> None:
    """No element is further off than tolerance times (1 + the largest published one)."""
    assert ours.shape == theirs.shape
    limit = tolerance * (1 + float(theirs.abs().max()))
    worst = float((ours.detach() - theirs).abs().max())
    assert worst <= limit, f"off by {worst:.2e}, allowed {limit:.2e}"
