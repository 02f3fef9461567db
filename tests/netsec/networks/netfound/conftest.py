# SPDX-License-Identifier: Apache-2.0
"""What the published netFound computed, and flows made up in code."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fieldfare.netsec.networks.netfound import (
    FlowInputs,
    FlowTokens,
    NetFoundConfig,
    PacketFields,
    tokenise,
)

WORDS = "base_transformer.embeddings.word_embeddings.weight"


@pytest.fixture(scope="session")
def published(reference: Path) -> Path:
    return reference / "netfound"


@pytest.fixture(scope="session")
def compat_config() -> NetFoundConfig:
    """The fixtures' size."""
    return NetFoundConfig(16, 2, 4, 24, compat=True)


def inputs_of(tensors: dict[str, torch.Tensor]) -> FlowInputs:
    """The fixtures repeat a burst's metadata for each of its tokens; we hold them once."""

    def tokens(name: str) -> torch.Tensor:
        return tensors[f"in.{name}"].view(5, 12, 73)

    return FlowInputs(
        ids=tokens("input_ids"),
        mask=tokens("attention_mask").bool(),
        direction=tokens("direction")[:, :, 0],
        bytes=tokens("bytes")[:, :, 0],
        packets=tokens("pkt_count")[:, :, 0],
        interval=tokens("iats")[:, :, 0],
        protocol=tensors["in.protocol"],
    )


def state_of(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    state = {name[3:]: t.float() for name, t in tensors.items() if name.startswith("sd.")}
    if "word_embeddings.used_ids" in tensors:
        words = torch.zeros(65600, 16)
        words[tensors["word_embeddings.used_ids"]] = tensors["word_embeddings.used_rows"]
        state[WORDS] = words
    return state


@pytest.fixture(scope="session")
def finetune(published):
    """(inputs, state dict, all tensors) of the fine-tuning fixture."""
    tensors = load_file(published / "finetune_tiny.safetensors")
    return inputs_of(tensors), state_of(tensors), tensors


@pytest.fixture(scope="session")
def pretrain(published):
    """(inputs, state dict, all tensors) of the pre-training fixture."""
    tensors = load_file(published / "pretrain_tiny.safetensors")
    return inputs_of(tensors), state_of(tensors), tensors


def random_packets(sizes: list[int], seed: int = 0, payload_words: int = 0) -> PacketFields:
    """Flows of so many packets, TCP, UDP, ICMP and others in turn, with pauses of up to 40 ms."""
    rng = np.random.default_rng(seed)
    packets = sum(sizes)
    header = rng.integers(0, 65536, (packets, 12))
    header[:, 2] %= 1500  # the packet's length
    return PacketFields(
        protocol=np.resize(np.array([6, 17, 1, 0]), len(sizes)),
        flow=np.repeat(np.arange(len(sizes)), sizes),
        time=np.cumsum(rng.integers(0, 40_000_000, packets) * rng.integers(0, 2, packets)),
        backward=rng.integers(0, 2, packets).astype(bool),
        header=header,
        payload=rng.integers(0, 65536, (packets, payload_words)),
    )


@pytest.fixture
def make_packets():
    return random_packets


@pytest.fixture(scope="session")
def flow_tokens() -> FlowTokens:
    """24 random flows of 1 to 60 packets."""
    sizes = [1, 2, 3, 5, 60, 8, 13, 30] * 3
    return tokenise(random_packets(sizes), NetFoundConfig(16, 2, 4, 24))
