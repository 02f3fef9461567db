# SPDX-License-Identifier: Apache-2.0
"""netFound behind the interface of `architectures`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...capture import FlowBatch, Kept
from .config import CLS, CONFIGS, MASK, NetFoundConfig
from .convert import PUBLISHED, load_backbone
from .embedding import FlowInputs
from .network import NetFoundClassifier
from .pretraining import NetFoundPretraining, corrupt
from .records import ICMP, TCP, UDP, packet_fields
from .tokens import FlowTokens, tokenise

if TYPE_CHECKING:
    from ..experts import ExpertsConfig

HIDDEN_TOKENS = 0.3
"""Most that augmentation hides of a flow's tokens."""

LESS_BURSTS = 0.3
"""Share of flows of which augmentation leaves out the last bursts."""

_HEADER, _ECHO = 80, 8


class NetFoundArchitecture:
    """See `architectures.Architecture`."""

    published = PUBLISHED
    configs: Mapping[str, NetFoundConfig] = CONFIGS

    def read_config(self, values: Mapping[str, Any]) -> NetFoundConfig:
        """From a card's values."""
        return NetFoundConfig(**values)

    def kept(self, config: NetFoundConfig) -> Kept:
        """As many packets as all bursts hold."""
        return {
            "keep_packets": config.max_bursts * config.packets_per_burst,
            "keep_header": _HEADER,
            "keep_payload": 2 * config.payload_tokens + _ECHO,
        }

    def read(self, flows: FlowBatch, config: NetFoundConfig) -> FlowTokens:
        """Bursts of tokens."""
        fields = packet_fields(flows, config.payload_tokens, compat=config.compat)
        return tokenise(fields, config)

    def classifier(self, config: NetFoundConfig, classes: int) -> NetFoundClassifier:
        """With fresh weights."""
        return NetFoundClassifier(config, classes)

    def pretraining(self, config: NetFoundConfig) -> NetFoundPretraining:
        """With the four objectives' heads."""
        return NetFoundPretraining(config)

    def pretraining_loss(
        self, network: NetFoundPretraining, batch: FlowInputs, seed: int
    ) -> Tensor:
        """Sum of the four losses."""
        device = batch.ids.device
        hidden = corrupt(batch.to(torch.device("cpu")), seed)
        loss: Tensor = network(
            hidden._replace(
                inputs=hidden.inputs.to(device),
                labels=hidden.labels.to(device),
                swapped=hidden.swapped.to(device),
                hidden_bursts=hidden.hidden_bursts.to(device),
            )
        ).total
        return loss

    def augment(
        self, batch: FlowInputs, config: NetFoundConfig, rng: np.random.Generator
    ) -> FlowInputs:
        """Hide tokens, and the last bursts of some flows."""
        ids, mask = batch.ids, batch.mask
        count = len(ids)
        share = torch.from_numpy(rng.random((count, 1, 1)) * HIDDEN_TOKENS)
        chosen = torch.from_numpy(rng.random(tuple(ids.shape))) < share
        ids = torch.where(chosen & mask & (ids != CLS), MASK, ids)
        bursts = mask[:, :, 0].sum(dim=1)
        kept = torch.from_numpy(rng.integers(1, np.maximum(bursts.numpy(), 1) + 1))
        kept = torch.where(torch.from_numpy(rng.random(count) < LESS_BURSTS), kept, bursts)
        seen = torch.arange(mask.shape[1]) < kept[:, None]
        return batch._replace(
            ids=ids * seen[..., None],
            mask=mask & seen[..., None],
            direction=batch.direction * seen,
            bytes=batch.bytes * seen,
            packets=batch.packets * seen,
            interval=batch.interval * seen,
        )

    def load_encoder(
        self, network: NetFoundClassifier, tensors: Mapping[str, Tensor], path: Path
    ) -> None:
        """See `convert.load_backbone`."""
        load_backbone(network, tensors, path)

    def install_experts(
        self, network: torch.nn.Module, config: NetFoundConfig, experts: "ExpertsConfig"
    ) -> None:
        """In the place of all feed-forward layers."""
        from .experts import install_experts

        install_experts(network, config.layers, experts)

    def used(self, network: torch.nn.Module) -> tuple[Tensor, Tensor]:
        """See `experts.used`."""
        from .experts import used

        return used(network)

    def example(self, config: NetFoundConfig) -> dict[str, Tensor]:
        """Random tokens of TCP, UDP and ICMP."""
        generator = torch.Generator().manual_seed(0)
        shape = (3, config.max_bursts)
        ids = torch.randint(1, CLS, (*shape, config.burst_length), generator=generator)
        flows = FlowInputs(
            ids=ids,
            mask=torch.ones_like(ids, dtype=torch.bool),
            direction=torch.ones(shape),
            bytes=torch.rand(shape, generator=generator) * 1000,
            packets=torch.ones(shape),
            interval=torch.rand(shape, generator=generator),
            protocol=torch.tensor([TCP, UDP, ICMP]),
        )
        return flows._asdict()

    def join(self, tensors: Sequence[Tensor]) -> FlowInputs:
        """The fields in order."""
        return FlowInputs(*tensors)
