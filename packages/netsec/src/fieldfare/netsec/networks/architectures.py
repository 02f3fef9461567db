# SPDX-License-Identifier: Apache-2.0
"""The networks behind one interface: flows in, logits and embeddings out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from fieldfare.common.errors import InputError
from fieldfare.common.weights import ModelCard

from ..capture import FlowBatch

TASK = "traffic-classification"


class Inputs(Protocol):
    """What a network reads of N flows, in memory."""

    def __len__(self) -> int: ...

    def by_size(self) -> np.ndarray:
        """(N,) rows in an order in which batches waste little on padding."""

    def batch(self, rows: np.ndarray) -> Any:
        """Some flows as what the network takes: a tensor or a tuple of tensors."""


class FlowNetwork(Protocol):
    """A classifier; a batch is what `Inputs.batch` gives."""

    def embed(self, batch: Any) -> Tensor:
        """(B, E), one vector for each flow."""

    def classify(self, embeddings: Tensor) -> Tensor:
        """(B, E) -> logits (B, C)."""


class Architecture(Protocol):
    """One kind of network; `config` is one of its own kind of configuration throughout."""

    @property
    def name(self) -> str:
        """As in cards."""

    @property
    def configs(self) -> Mapping[str, Any]:
        """Configurations by name."""

    def read_config(self, values: Mapping[str, Any]) -> Any:
        """A configuration from what a card holds; raises TypeError or ValueError."""

    def kept(self, config: Any) -> dict[str, int]:
        """What must be kept of packets: these fields of `capture.FlowOptions`."""

    def read(self, flows: FlowBatch, config: Any) -> Inputs:
        """Flows as inputs; more may have been kept than is read."""

    def classifier(self, config: Any, classes: int) -> nn.Module:
        """A `FlowNetwork` with fresh weights."""

    def pretraining(self, config: Any) -> nn.Module:
        """The network with its pre-training heads."""

    def pretraining_loss(self, network: Any, batch: Any, seed: int) -> Tensor:
        """A scalar; the seed decides what is hidden."""

    def augment(self, batch: Any, config: Any, rng: np.random.Generator) -> Any:
        """A batch for training, changed in ways that do not change its classes."""

    def load_encoder(self, network: Any, tensors: Mapping[str, Tensor], path: Path) -> None:
        """Give a classifier the encoder of a pre-trained one; raises InputError."""

    def convert(
        self, source: Path, target: Path, *, task: str, classes: Sequence[str] | None
    ) -> ModelCard:
        """Write a published checkpoint as a model file; raises InputError."""


def architecture(name: str) -> Architecture:
    """By name.

    Raises:
        InputError: none has that name.
    """
    from .netfound.architecture import NetFoundArchitecture
    from .netmamba.architecture import NetMambaArchitecture

    known: dict[str, Architecture] = {
        found.name: found for found in (NetMambaArchitecture(), NetFoundArchitecture())
    }
    if name not in known:
        raise InputError(f"no architecture is named {name!r}; there are {', '.join(known)}")
    return known[name]
