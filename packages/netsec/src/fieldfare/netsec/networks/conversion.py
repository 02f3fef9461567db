# SPDX-License-Identifier: Apache-2.0
"""Published checkpoints as our model files, and pre-trained encoders as classifiers'."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fieldfare.common.errors import InputError
from fieldfare.common.weights import ModelCard, fit_state_dict, load_checkpoint, save_model_file


def _as_they_are(tensors: Mapping[str, Tensor], _: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return dict(tensors)


@dataclass(frozen=True, kw_only=True)
class Published:
    """The published checkpoints of an architecture, and our networks that take them.

    Attributes:
        name: of the architecture, as in cards.
        title: what it is called.
        paper: that describes it.
        head: the tensor that only a fine-tuned checkpoint has, (C, E).
        config: from the shapes of a checkpoint's tensors to a configuration; raises ValueError
            where they fit none.
        classifier: from a configuration and a number of classes to a network.
        pretraining: from a configuration to a network with its pre-training heads.
        files: that a checkpoint's folder holds, in order of preference.
        complete: tensors and those of the network -> the tensors under all their names.
        settings: of a `classifier.ClassifierConfig`, what the checkpoints were trained with.
        limits: of the card.
    """

    name: str
    title: str
    paper: str
    head: str
    config: Callable[["Shapes"], Any]
    classifier: Callable[[Any, int], nn.Module]
    pretraining: Callable[[Any], nn.Module]
    files: tuple[str, ...] = ()
    complete: Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], dict[str, Tensor]] = (
        _as_they_are
    )
    settings: Mapping[str, Any] = field(default_factory=dict)
    limits: str = "unknown"


@dataclass(frozen=True)
class Shapes:
    """Shapes of a checkpoint's tensors, by name.

    Attributes:
        tensors: of the checkpoint.
        path: of the checkpoint, for messages.
        title: of the network, for messages.
    """

    tensors: Mapping[str, Tensor]
    path: Path
    title: str

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def of(self, name: str, dimensions: int = 2) -> torch.Size:
        """The shape of a tensor of so many dimensions; raises InputError where there is none."""
        if name not in self.tensors or self.tensors[name].ndim != dimensions:
            raise InputError(f"{self.path}: is no {self.title} checkpoint: no fitting {name}")
        return self.tensors[name].shape

    def depth(self, prefix: str) -> int:
        """How many numbers follow a prefix in the names: `blocks` for blocks.0.norm.weight."""
        found = (re.match(rf"{re.escape(prefix)}\.(\d+)\.", name) for name in self.tensors)
        return len({match[1] for match in found if match})


def infer_config(published: Published, tensors: Mapping[str, Tensor], path: Path) -> Any:
    """The configuration that a published state dict's shapes imply.

    Args:
        path: for messages.

    Raises:
        InputError: no state dict of that architecture.
    """
    try:
        return published.config(Shapes(tensors, path, published.title))
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: fits no {published.title}: {error}") from None


def convert_checkpoint(
    published: Published,
    source: Path,
    target: Path,
    *,
    task: str,
    classes: Sequence[str] | None = None,
) -> ModelCard:
    """Write a published checkpoint, pre-trained or fine-tuned, as one of our model files.

    Args:
        source: a file of tensors, with the state dict under `model` or bare, or a folder that
            holds one of `published.files`.
        target: the .safetensors file to write.
        task: of the card.
        classes: names of a fine-tuned checkpoint's classes, in order; `class_0` and so on when
            None. Not for a pre-trained one.

    Returns:
        The card; its config is that of a `classifier.ClassifierConfig`, with `classes` None for a
        pre-trained checkpoint.

    Raises:
        InputError: unreadable, no checkpoint of that architecture, or one that does not fit the
            classes.
    """
    path = _find(source, published.files)
    tensors = {name: tensor.float() for name, tensor in load_checkpoint(path).items()}
    config = infer_config(published, tensors, path)
    names = class_names(tensors.get(published.head), classes, path)
    with torch.device("meta"):
        if names is None:
            network, kind = published.pretraining(config), "pre-trained"
        else:
            network = published.classifier(config, len(names))
            kind = f"fine-tuned to {len(names)} classes"
    expected = network.state_dict()
    fit = fit_state_dict(published.complete(tensors, expected), expected)
    fit.require_complete(path)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    card = ModelCard(
        name=target.stem,
        task=task,
        summary=f"{published.title}, {kind}, {parameters:,} parameters, converted from "
        f"{path.name}.",
        config={
            "architecture": published.name,
            "network": config.to_dict(),
            "classes": names,
            **published.settings,
        },
        training=f"published checkpoint ({published.paper}), converted",
        limits=published.limits,
    )
    save_model_file(target, fit.tensors, card)
    return card


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


def load_part(
    network: nn.Module, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path
) -> None:
    """Give a network the tensors of one of its parts; the others stay as they are.

    Args:
        tensors: of the part, under the network's names.
        expected: what the part consists of.
        path: for messages.

    Raises:
        InputError: they do not fit.
    """
    fit = fit_state_dict(tensors, expected)
    fit.require_complete(path)
    network.load_state_dict(fit.tensors, strict=False)


def _find(source: Path, names: Sequence[str]) -> Path:
    """The file itself, or the one that a folder holds."""
    if not (names and source.is_dir()):
        return source
    for name in names:
        if (source / name).is_file():
            return source / name
    raise InputError(f"{source}: holds neither {' nor '.join(names)}")
