# SPDX-License-Identifier: Apache-2.0
"""The networks behind one interface: flows in, logits and embeddings out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import Tensor, nn

from fieldfare.common.errors import InputError

from ..options import ARCHITECTURES
from .conversion import Published

if TYPE_CHECKING:
    from ..capture import FlowBatch, Kept
    from .experts import ExpertsConfig

TASK = "traffic-classification"


class Inputs(Protocol):
    """What a network reads of N flows, in memory."""

    def __len__(self) -> int: ...

    def by_size(self) -> np.ndarray:
        """(N,) rows in an order in which batches waste little on padding."""

    def distinct(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows that differ, and the place of each row's like among them; `distinct_rows`."""

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
    def published(self) -> Published:
        """Its name as in cards, its title, and the published checkpoints."""

    @property
    def configs(self) -> Mapping[str, Any]:
        """Configurations by name."""

    def read_config(self, values: Mapping[str, Any]) -> Any:
        """A configuration from what a card holds; raises TypeError or ValueError."""

    def kept(self, config: Any) -> "Kept":
        """What must be kept of packets."""

    def read(self, flows: "FlowBatch", config: Any) -> Inputs:
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

    def install_experts(self, network: Any, config: Any, experts: "ExpertsConfig") -> None:
        """Give a classifier experts in place of its feed-forward layers, or beside its mixers.

        Raises ValueError where they cannot be made so.
        """

    def used(self, network: Any) -> tuple[Tensor, Tensor]:
        """Of the last pass over B flows: (B, M, E) int64, tokens of each flow that ran each expert
        of each layer; (B, M) int64, tokens of each flow that the layer saw.
        """

    def example(self, config: Any) -> dict[str, Tensor]:
        """Three flows made up, as tensors by the names that an exported network gives them."""

    def join(self, tensors: Sequence[Tensor]) -> Any:
        """Tensors in the order of `example` as a batch."""


def architecture(name: str) -> Architecture:
    """By name.

    Raises:
        InputError: none has that name.
    """
    if name == "netmamba":
        from .netmamba.architecture import NetMambaArchitecture

        return NetMambaArchitecture()
    if name == "netfound":
        from .netfound.architecture import NetFoundArchitecture

        return NetFoundArchitecture()
    raise InputError(f"no architecture is named {name!r}; there are {', '.join(ARCHITECTURES)}")


def place_experts(
    kind: Architecture, network: nn.Module, config: Any, experts: "ExpertsConfig"
) -> None:
    """`Architecture.install_experts`; raises InputError where that raises ValueError."""
    try:
        kind.install_experts(network, config, experts)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"experts: {error}") from None


def preset(name: str) -> tuple[Architecture, Any]:
    """An architecture and one of its configurations, by a name such as netmamba/small."""
    kind_name, _, size = name.partition("/")
    kind = architecture(kind_name)
    return kind, kind.configs[size]


def title(kind: Architecture, config: Any) -> str:
    """For people: NetMamba small."""
    size = next((size for size, known in kind.configs.items() if known == config), "of own size")
    return f"{kind.published.title} {size}"
