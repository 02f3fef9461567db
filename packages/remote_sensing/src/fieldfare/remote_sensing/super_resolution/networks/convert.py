# SPDX-License-Identifier: Apache-2.0
"""Published EDiffSR checkpoints into self-describing safetensors files."""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fieldfare.common.errors import InputError
from fieldfare.common.weights import (
    ModelCard,
    fit_state_dict,
    load_checkpoint,
    save_model_file,
)

from .ediffsr import EDiffSR, EDiffSRConfig
from .model import TASK, ModelConfig


def network_config(tensors: Mapping[str, Tensor], path: Path) -> EDiffSRConfig:
    """Read the network's shape off the published parameter names and shapes.

    Raises:
        InputError: these are not an EDiffSR network's parameters.
    """

    def blocks(prefix: str) -> tuple[int, ...]:
        found: dict[int, set[int]] = {}
        for name in tensors:
            if match := re.match(rf"{prefix}\.(\d+)\.(\d+)\.", name):
                found.setdefault(int(match[1]), set()).add(int(match[2]))
        return tuple(len(found[level]) for level in sorted(found))

    middle = {match[1] for name in tensors if (match := re.match(r"middle_blks\.(\d+)\.", name))}
    try:
        width = tensors["intro.weight"].shape[0]
        channels = tensors["ending.weight"].shape[0]
        return EDiffSRConfig(
            channels=channels,
            width=width,
            encoder_blocks=blocks("encoders"),
            middle_blocks=len(middle),
            decoder_blocks=blocks("decoders"),
        )
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: holds no EDiffSR network ({error})") from None


def convert(source: Path, target: Path) -> tuple[ModelCard, int]:
    """Convert a published checkpoint; every tensor must fit, none may be left over.

    The diffusion is taken to be the published one: 100 cosine steps, eps 0.005, lambda 50 / 255.

    Returns:
        The card that was written and the number of parameters.

    Raises:
        InputError: unreadable, or tensors that do not fit; the message lists them.
    """
    tensors = load_checkpoint(source)
    config = ModelConfig(network=network_config(tensors, source))
    fit = fit_state_dict(tensors, EDiffSR(config.network).state_dict())
    fit.require_complete(source)
    card = ModelCard(
        name=target.stem,
        task=TASK,
        summary=f"EDiffSR converted from the published checkpoint {source.name}.",
        config=config.to_dict(),
        limits="converted from a checkpoint: what it was trained on is for its authors to say",
    )
    save_model_file(target, {name: t.float() for name, t in fit.tensors.items()}, card)
    return card, sum(tensor.numel() for tensor in fit.tensors.values())
