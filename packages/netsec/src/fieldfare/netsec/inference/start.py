# SPDX-License-Identifier: Apache-2.0
"""What training begins with: a model that is there, and the network that is made of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fieldfare.common.errors import InputError
from fieldfare.common.weights import load_model_file, locate

from ..networks.architectures import TASK, Architecture, architecture, place_experts
from ..networks.experts import ExpertsConfig
from .classifier import ClassifierConfig


@dataclass(frozen=True)
class Start:
    """A pre-trained or fine-tuned model to begin with.

    Attributes:
        kind: its architecture.
        config: of its network.
        tensors: of its network.
        path: of its file.
        experts: of its network.
        classes: that it knows; None of one that is only pre-trained.
        hidden, optional: see `ClassifierConfig`.
    """

    kind: Architecture
    config: Any
    tensors: Mapping[str, Tensor]
    path: Path
    experts: ExpertsConfig | None = None
    classes: tuple[str, ...] | None = None
    hidden: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


def load_start(name_or_path: str) -> Start:
    """A packaged model by name or a model file by path.

    Raises:
        InputError: no such model, or one of another task.
    """
    path = locate(name_or_path, TASK)
    card, tensors = load_model_file(path)
    if card.task != TASK:
        raise InputError(f"{path}: is a {card.task} model; this needs one of {TASK}")
    try:
        described = ClassifierConfig.from_card(card.config)
        kind = architecture(described.architecture)
        experts = None if described.experts is None else ExpertsConfig(**described.experts)
        config = kind.read_config(described.network)
        return Start(
            kind, config, tensors, path, experts, described.classes, described.hidden,
            described.optional,
        )  # fmt: skip
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: its card describes no usable network: {error}") from None


def first_network(
    kind: Architecture,
    config: Any,
    classes: tuple[str, ...],
    start: Start | None,
    experts: ExpertsConfig | None,
    *,
    keep_head: bool = False,
) -> nn.Module:
    """The network that training begins with.

    Experts are made of the start's trained layers; with its head too, if it knows the same classes,
    the network with all experts chosen is the start.

    Raises:
        InputError: an encoder that does not fit, or layers that cannot be cut into such experts.
    """
    network = kind.classifier(config, len(classes))
    have = None if start is None else start.experts
    if have is not None:
        place_experts(kind, network, config, have)
    if start is not None:
        kind.load_encoder(network, start.tensors, start.path)
        if keep_head and start.classes == classes:
            network.load_state_dict(dict(start.tensors))
    if experts is not None and have is None:
        place_experts(kind, network, config, experts)
    return network
