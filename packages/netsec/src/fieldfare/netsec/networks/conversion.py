# SPDX-License-Identifier: Apache-2.0
"""What the conversions of published checkpoints share: names of classes, and the model file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fieldfare.common.errors import InputError
from fieldfare.common.weights import ModelCard, fit_state_dict, save_model_file


def class_names(head: Tensor | None, classes: Sequence[str] | None, path: Path) -> list[str] | None:
    """Names of a checkpoint's classes, or None where it has no classifier.

    Args:
        head: (C, E), weight of the classifier; None in a pre-trained checkpoint.
        classes: the names, in order; `class_0` and so on when None.
        path: for messages.

    Raises:
        InputError: names that do not fit, or that nothing is there for.
    """
    if head is None:
        if classes is not None:
            raise InputError(f"{path}: is a pre-trained checkpoint; it has no classes to name")
        return None
    count = len(head)
    if classes is None:
        return [f"class_{number}" for number in range(count)]
    if len(classes) != count or len(set(classes)) != count:
        raise InputError(f"{path}: has {count} classes; {len(set(classes))} names were given")
    return list(classes)


def save_converted(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    path: Path,
    target: Path,
    *,
    title: str,
    paper: str,
    task: str,
    config: Mapping[str, Any],
    limits: str = "unknown",
) -> ModelCard:
    """Write a published checkpoint's tensors as a model file, if they are those of the network.

    Args:
        network: that the checkpoint is of; its tensors may be on the device meta.
        tensors: of the checkpoint.
        path: of the checkpoint.
        target: the .safetensors file to write.
        title: what the network is called.
        paper: that describes it.
        task: of the card.
        config: of the card, of a `classifier.ClassifierConfig`.
        limits: of the card.

    Returns:
        The card.

    Raises:
        InputError: tensors that are missing, left over or of another shape.
    """
    fit = fit_state_dict(tensors, network.state_dict())
    fit.require_complete(path)
    names = config["classes"]
    kind = "pre-trained" if names is None else f"fine-tuned to {len(names)} classes"
    parameters = sum(parameter.numel() for parameter in network.parameters())
    card = ModelCard(
        name=target.stem,
        task=task,
        summary=f"{title}, {kind}, {parameters:,} parameters, converted from {path.name}.",
        config=dict(config),
        training=f"published checkpoint ({paper}), converted",
        limits=limits,
    )
    save_model_file(target, fit.tensors, card)
    return card
