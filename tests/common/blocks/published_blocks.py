# SPDX-License-Identifier: Apache-2.0
"""Tensors that published implementations computed, and how near ours must come."""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

REFERENCE = Path(__file__).parents[2] / "reference"


def published(name: str) -> dict[str, Tensor]:
    """All tensors of a file below tests/reference, as `slab/prepbn`."""
    return load_file(REFERENCE / f"{name}.safetensors")


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with the prefix, named by the rest."""
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def assert_near(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    """No element is further off than tolerance times (1 + the largest published one)."""
    assert ours.shape == theirs.shape
    theirs = theirs.detach()
    limit = tolerance * (1 + float(theirs.abs().max()))
    worst = float((ours.detach() - theirs).abs().max())
    assert worst <= limit, f"off by {worst:.2e}, allowed {limit:.2e}"
