# SPDX-License-Identifier: Apache-2.0
"""Numbers of the published implementation, and the small networks they belong to."""

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fieldfare.remote_sensing.super_resolution.networks.ediffsr import EDiffSR, EDiffSRConfig

KEPT = Path(__file__).parents[2] / "reference" / "ediffsr"

Reference = Callable[[str], dict[str, Tensor]]

TINY = {
    "tiny2": EDiffSRConfig(width=16, encoder_blocks=(2, 1), decoder_blocks=(1, 1)),
    "tiny4": EDiffSRConfig(width=16, encoder_blocks=(2, 1, 1, 1)),
}


@pytest.fixture(autouse=True)
def one_thread_one_seed() -> Iterator[None]:
    """Tiny tensors are done sooner by one thread; a command under test may have asked for more."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def reference() -> Reference:
    """Name of a file -> its tensors in float32 (whole numbers as they are); see its README."""

    @cache
    def load(name: str) -> dict[str, Tensor]:
        folders = [KEPT]
        if os.environ.get("FIELDFARE_REFERENCE"):
            folders.append(Path(os.environ["FIELDFARE_REFERENCE"]) / "ediffsr")
        for folder in folders:
            if (folder / f"{name}.safetensors").exists():
                tensors = load_file(folder / f"{name}.safetensors")
                return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
        pytest.skip(f"NOT CHECKED: {name} is too large to keep; set FIELDFARE_REFERENCE")

    return load


@pytest.fixture(scope="session")
def tiny(reference: Reference) -> Callable[..., EDiffSR]:
    """Name of a small configuration (and of a weight file) -> the frozen network."""

    def build(name: str, weights: str = "state_dict") -> EDiffSR:
        network = EDiffSR(TINY[name])
        network.load_state_dict(reference(f"{name}_{weights}"))
        return network.eval().requires_grad_(False)

    return build


@pytest.fixture(scope="session")
def random_tiny() -> Callable[[str], EDiffSR]:
    """Name of a small configuration -> that network, beta and gamma random, too."""

    def build(name: str) -> EDiffSR:
        torch.manual_seed(0)
        network = EDiffSR(TINY[name])
        for key, parameter in network.named_parameters():
            if key.endswith((".beta", ".gamma", ".g")):
                torch.nn.init.normal_(parameter, float(key.endswith(".g")), 0.3)
        return network.eval().requires_grad_(False)

    return build


@pytest.fixture(scope="session")
def assert_close() -> Callable[..., None]:
    """Largest difference at most `tolerance` times the largest value (or 1, if that is less)."""

    def check(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
        assert actual.shape == expected.shape
        scale = max(1.0, float(expected.abs().max()))
        difference = float((actual.detach() - expected).abs().max())
        assert difference <= tolerance * scale, f"{difference:.2e} at a scale of {scale:.2g}"

    return check
