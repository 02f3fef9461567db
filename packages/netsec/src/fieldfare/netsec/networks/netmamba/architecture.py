# SPDX-License-Identifier: Apache-2.0
"""NetMamba behind the interface of `architectures`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...capture import FlowBatch, Kept
from ..distinct import distinct_rows
from .config import CONFIGS, NetMambaConfig
from .convert import PUBLISHED, load_encoder
from .network import NetMamba, NetMambaClassifier
from .packet_bytes import packet_bytes
from .pretraining import NetMambaPretraining

if TYPE_CHECKING:
    from ..experts import ExpertsConfig


@dataclass(frozen=True)
class ByteRows:
    """Bytes of N flows, (N, byte_length) uint8."""

    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def by_size(self) -> np.ndarray:
        """All are of one size: (N,) rows as they are."""
        return np.arange(len(self.rows))

    def distinct(self) -> tuple[np.ndarray, np.ndarray]:
        """See `distinct_rows`."""
        return distinct_rows(self.rows)

    def batch(self, rows: np.ndarray) -> Tensor:
        """(B, byte_length) uint8."""
        return torch.from_numpy(self.rows[rows])


class NetMambaArchitecture:
    """See `architectures.Architecture`."""

    published = PUBLISHED
    configs: Mapping[str, NetMambaConfig] = CONFIGS

    def read_config(self, values: Mapping[str, Any]) -> NetMambaConfig:
        """From a card's values."""
        return NetMambaConfig(**values)

    def kept(self, config: NetMambaConfig) -> Kept:
        """The packets and bytes that are read; whole headers, to tell the payload's begin."""
        return {
            "keep_packets": config.packets,
            "keep_header": config.header_bytes,
            "keep_payload": config.payload_bytes,
        }

    def read(self, flows: FlowBatch, config: NetMambaConfig) -> ByteRows:
        """Bytes of the first packets."""
        return ByteRows(
            packet_bytes(
                flows,
                packets=config.packets,
                header_bytes=config.header_bytes,
                payload_bytes=config.payload_bytes,
                mark_direction=config.mark_direction,
            )
        )

    def classifier(self, config: NetMambaConfig, classes: int) -> NetMambaClassifier:
        """With fresh weights."""
        return NetMambaClassifier(config, classes)

    def pretraining(self, config: NetMambaConfig) -> NetMambaPretraining:
        """The masked autoencoder."""
        return NetMambaPretraining(config)

    def pretraining_loss(self, network: NetMambaPretraining, batch: Tensor, seed: int) -> Tensor:
        """Error of the reconstruction."""
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(len(batch), network.config.tokens, generator=generator)
        loss: Tensor = network(batch, noise.to(batch.device)).loss
        return loss

    def augment(self, batch: Tensor, config: NetMambaConfig, rng: np.random.Generator) -> Tensor:
        """See `augmentation.augment`."""
        from .augmentation import augment

        return torch.from_numpy(augment(batch.numpy(), config, rng))

    def load_encoder(self, network: NetMamba, tensors: Mapping[str, Tensor], path: Path) -> None:
        """See `convert.load_encoder`."""
        load_encoder(network, tensors, path)

    def install_experts(
        self, network: NetMamba, config: NetMambaConfig, experts: "ExpertsConfig"
    ) -> None:
        """Beside the mixer of each block; see `experts`."""
        from .experts import install_experts

        install_experts(network, config, experts)

    def used(self, network: NetMamba) -> tuple[Tensor, Tensor]:
        """See `experts.used`."""
        from .experts import used

        return used(network)

    def example(self, config: NetMambaConfig) -> dict[str, Tensor]:
        """Random bytes."""
        generator = torch.Generator().manual_seed(0)
        rows = torch.randint(0, 256, (3, config.byte_length), generator=generator)
        return {"bytes": rows.to(torch.uint8)}

    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        """There is but one."""
        return tensors[0]
