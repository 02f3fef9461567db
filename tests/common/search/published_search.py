# SPDX-License-Identifier: Apache-2.0
"""Numbers of the published codes."""

from pathlib import Path

import torch
from safetensors.torch import load_file

REFERENCE = Path(__file__).resolve().parents[2] / "reference"


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """Everything in a file."""
    return load_file(path)


def near(found: torch.Tensor | None, expected: torch.Tensor, tolerance: float) -> None:
    """Equal up to a share of the largest expected value, of at least 1e-3."""
    assert found is not None
    expected = expected.detach()
    scale = max(1e-3, float(expected.abs().max()))
    assert float((found.detach() - expected).abs().max()) <= tolerance * scale
