# SPDX-License-Identifier: Apache-2.0
"""A small dehazing model for every test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fieldfare.common.weights import ModelCard, save_model_file
from fieldfare.remote_sensing.dehazing.networks.deanet import DEANet, DEANetConfig

TINY = DEANetConfig(width=8, blocks=(1, 1, 1, 1, 1), head="scattering", reduction=2)


@pytest.fixture(autouse=True)
def one_thread_one_seed() -> Iterator[None]:
    """Tiny tensors are done sooner by one thread; a command under test may have asked for more."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_dehazer(tmp_path_factory) -> Path:
    """A network of 8 channels with random weights, as a model file; tiles of 32 pixels or more."""
    torch.manual_seed(0)
    network = DEANet(TINY)
    with torch.no_grad():
        network.end.weight.mul_(0.3)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    card = ModelCard("tiny", "dehazing", "Random weights.", TINY.to_dict())
    save_model_file(path, network.state_dict(), card)
    return path
