# SPDX-License-Identifier: Apache-2.0
"""A trained network as a function of flows."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from fieldfare.common.errors import InputError
from fieldfare.common.runtime import resolve_device
from fieldfare.common.weights import ModelCard, from_pretrained

from ..capture import FlowBatch, Kept
from ..data.masking import FIELDS, mask
from ..networks.architectures import TASK, Architecture, FlowNetwork, Inputs, architecture
from .calibration import softmax

BATCH = {"cpu": 16, "cuda": 64}
"""Flows that the network sees at a time; few on a CPU, for its cache. Not an option: what a flow
gets would depend on it in its last digits."""


@dataclass(frozen=True)
class ClassifierConfig:
    """What a card's `config` says besides the network's own configuration.

    Attributes:
        architecture: name of an `Architecture`.
        network: values of its configuration.
        classes: names; None for a network that is only pre-trained.
        hidden: fields that are set to 0 before the network sees them, of `masking.FIELDS`.
        optional: fields among them that it has also seen in training, so that they may be shown.
        temperature: that logits are divided by, so that probabilities hold on validation flows.
        directed: it was trained on flows of one direction.
        decapsulated: it was trained on flows within tunnels.
        names_bare: it was trained on flows without payload (`flow_rows.is_bare`) and may name them.

    Raises:
        ValueError: unknown fields, or a temperature that is not positive.
    """

    architecture: str
    network: dict[str, Any]
    classes: tuple[str, ...] | None = None
    hidden: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    temperature: float = 1.0
    directed: bool = False
    decapsulated: bool = False
    names_bare: bool = False

    def __post_init__(self) -> None:
        if unknown := {*self.hidden, *self.optional} - set(FIELDS):
            raise ValueError(f"no field is named {min(unknown)!r}")
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}; it must be positive")

    @classmethod
    def from_card(cls, values: Mapping[str, Any]) -> "ClassifierConfig":
        """From a card; raises TypeError or ValueError on anything else."""
        lists = {
            name: tuple(values[name])
            for name in ("classes", "hidden", "optional")
            if values.get(name) is not None
        }
        return cls(**{**values, **lists})


@dataclass(frozen=True)
class Classified:
    """Of N flows and C classes.

    Attributes:
        logits: (N, C) float32.
        probabilities: (N, C) float64, calibrated.
        embeddings: (N, E) float32.
    """

    logits: np.ndarray
    probabilities: np.ndarray
    embeddings: np.ndarray


class FlowClassifier:
    """Flows with their first packets in, class probabilities and embeddings out.

    Args:
        network: a `FlowNetwork` of that architecture, in evaluation mode.
        config: see there.
        name: of the model.
        show: fields of `config.optional` that are not hidden.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        InputError: fields to show that the network has not seen in training, or no classes.
    """

    def __init__(
        self,
        network: nn.Module,
        config: ClassifierConfig,
        name: str = "",
        *,
        show: Collection[str] = (),
        device: str = "cpu",
    ) -> None:
        if config.classes is None:
            raise InputError(f"{name}: is only pre-trained; fine-tune it with net-traffic train")
        if unseen := set(show) - set(config.optional):
            seen = ", ".join(config.optional) or "nothing"
            raise InputError(
                f"{name}: was trained with {min(unseen)} hidden; it can be shown {seen}"
            )
        self.architecture: Architecture = architecture(config.architecture)
        self.network_config = self.architecture.read_config(config.network)
        self.device = resolve_device(device)
        self.network = network.to(self.device)
        self.config, self.name = config, name
        self.classes = config.classes
        self.hidden = tuple(field for field in config.hidden if field not in show)

    @property
    def kept(self) -> Kept:
        """What must be kept of packets, for `capture.FlowOptions(**classifier.kept)`."""
        return self.architecture.kept(self.network_config)

    def classify(self, flows: FlowBatch) -> Classified:
        """Logits, probabilities and embeddings, in the order of the flows."""
        inputs = self.architecture.read(mask(flows, self.hidden), self.network_config)
        logits, embeddings = run(self.network, inputs, len(self.classes))
        return Classified(logits, softmax(logits / self.config.temperature), embeddings)

    def __call__(self, flows: FlowBatch) -> np.ndarray:
        """(N, C) probabilities."""
        return self.classify(flows).probabilities


@torch.inference_mode()
def run(network: nn.Module, inputs: Inputs, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, C) and embeddings (N, E), float32, of a network in evaluation mode.

    Equal inputs are seen once, so that a scan of a million ports costs no more than one.
    """
    flow_network = cast(FlowNetwork, network)
    device = next(network.parameters()).device
    chosen, place = inputs.distinct() if len(inputs) else (np.empty(0, np.int64),) * 2
    by_size = inputs.by_size()
    order = by_size[np.isin(by_size, chosen)]
    logits = np.zeros((len(inputs), classes), np.float32)
    embeddings = np.zeros((len(inputs), 0), np.float32)
    size = BATCH[device.type]
    for first in range(0, len(order), size):
        rows = order[first : first + size]
        found = flow_network.embed(inputs.batch(rows).to(device))
        if not embeddings.size:
            embeddings = np.zeros((len(inputs), found.shape[1]), np.float32)
        embeddings[rows] = found.float().cpu().numpy()
        logits[rows] = flow_network.classify(found).float().cpu().numpy()
    return logits[chosen][place], embeddings[chosen][place]


def load_classifier(
    name_or_path: str, *, show: Collection[str] = (), device: str = "cpu"
) -> tuple[FlowClassifier, ModelCard]:
    """A packaged model by name or a model file by path.

    Raises:
        InputError: no such model, one of another task, or one that is only pre-trained.
    """

    def build(values: dict[str, Any]) -> nn.Module:
        config = ClassifierConfig.from_card(values)
        kind = architecture(config.architecture)
        network = kind.read_config(config.network)
        if config.classes is None:
            return kind.pretraining(network)
        return kind.classifier(network, len(config.classes))

    network, card = from_pretrained(name_or_path, TASK, build)
    config = ClassifierConfig.from_card(card.config)
    return FlowClassifier(network, config, card.name, show=show, device=device), card
