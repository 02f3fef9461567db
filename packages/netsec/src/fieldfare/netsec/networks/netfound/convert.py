# SPDX-License-Identifier: Apache-2.0
"""Published netFound checkpoints (snlucsb/netFound-small, -base, -large) as our model files."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fieldfare.common.errors import InputError
from fieldfare.common.weights import ModelCard, fit_state_dict, load_checkpoint

from ..conversion import class_names, save_converted
from .config import HEADER_TOKENS, VOCABULARY, NetFoundConfig
from .network import NetFoundClassifier
from .pretraining import NetFoundPretraining

ARCHITECTURE = "netfound"
PACKETS_PER_BURST = 6

CHECKPOINT_FILES = ("model.safetensors", "pytorch_model.bin")
"""What a published checkpoint's folder holds, in order of preference."""

_EMBEDDINGS = "base_transformer.embeddings"
_ENCODER = "base_transformer.encoder"
_BACKBONE = ("base_transformer.", "attentivePooling.")
_SHARED = (
    (rf"{_EMBEDDINGS}\.word_embeddings\.weight", r"lm_head\.decoder\.weight"),
    (r"lm_head\.bias", r"lm_head\.decoder\.bias"),
    (rf"{_ENCODER}\.layer\.\d+\.position_embeddings\.weight",),
)
"""Tensors that are one and the same under several names; files may hold only one of them."""


def convert_checkpoint(
    source: Path, target: Path, *, task: str, classes: Sequence[str] | None = None
) -> ModelCard:
    """Write a published checkpoint, pre-trained or fine-tuned, as one of our model files.

    The network computes as published (`compat`): the weights were trained so.

    Args:
        source: a .safetensors or .bin file, or the folder that holds it.
        target: the .safetensors file to write.
        task: of the card.
        classes: names of a fine-tuned checkpoint's classes, in order; `class_0` and so on when
            None. Not for a pre-trained one.

    Returns:
        The card; its config is that of a `classifier.ClassifierConfig`, with `classes` None for a
        pre-trained checkpoint.

    Raises:
        InputError: unreadable, no netFound checkpoint, or one that does not fit the classes.
    """
    path = _find(source)
    tensors = {name: tensor.float() for name, tensor in load_checkpoint(path).items()}
    config = infer_config(tensors, path)
    names = class_names(tensors.get("classifier.weight"), classes, path)
    with torch.device("meta"):
        network: nn.Module = (
            NetFoundPretraining(config) if names is None else NetFoundClassifier(config, len(names))
        )
    return save_converted(
        network,
        fill_shared(tensors, network.state_dict()),
        path,
        target,
        title="netFound",
        paper="arXiv 2310.17025",
        task=task,
        config={"architecture": ARCHITECTURE, "network": config.to_dict(), "classes": names},
    )


def infer_config(tensors: Mapping[str, Tensor], path: Path) -> NetFoundConfig:
    """The configuration that a published state dict's shapes imply.

    Args:
        path: for messages.

    Raises:
        InputError: no netFound state dict.
    """

    def shape(name: str, dimensions: int = 2) -> torch.Size:
        if name not in tensors or tensors[name].ndim != dimensions:
            raise InputError(f"{path}: is no netFound checkpoint: no matrix {name}")
        return tensors[name].shape

    vocabulary, hidden = shape(f"{_EMBEDDINGS}.word_embeddings.weight")
    burst_length, head_width = shape(f"{_ENCODER}.burst_positions.weight")
    flow_positions, _ = shape(f"{_ENCODER}.flow_positions.weight")
    doubled, _ = shape(f"{_ENCODER}.layer.0.burst_encoder.mlp.Wi.weight")
    if vocabulary != VOCABULARY:
        raise InputError(f"{path}: has {vocabulary} tokens; netFound has {VOCABULARY}")
    found = (re.match(rf"{_ENCODER}\.layer\.(\d+)", name) for name in tensors)
    layers = {match[1] for match in found if match}
    per_packet, rest = divmod(burst_length - 1, PACKETS_PER_BURST)
    if rest or per_packet < HEADER_TOKENS or not head_width or hidden % head_width:
        raise InputError(
            f"{path}: bursts of {burst_length} tokens with attention heads {head_width} wide fit "
            "no netFound"
        )
    try:
        return NetFoundConfig(
            hidden_size=hidden,
            layers=len(layers),
            heads=hidden // head_width,
            intermediate_size=doubled // 2,
            payload_tokens=per_packet - HEADER_TOKENS,
            max_bursts=flow_positions - 1,
            packets_per_burst=PACKETS_PER_BURST,
            compat=True,
        )
    except ValueError as error:
        raise InputError(f"{path}: fits no netFound: {error}") from None


def fill_shared(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, with those that are stored under one name only under their others too."""
    filled = dict(tensors)
    for patterns in _SHARED:
        names = [name for name in expected if any(re.fullmatch(p, name) for p in patterns)]
        present = [name for name in names if name in tensors]
        if present:
            filled |= {name: tensors[present[0]] for name in names if name not in tensors}
    return filled


def load_backbone(
    classifier: NetFoundClassifier, tensors: Mapping[str, Tensor], path: Path
) -> None:
    """Take embedding, encoder and pooling from a pre-trained or fine-tuned network's tensors.

    Args:
        path: for messages.

    Raises:
        InputError: they do not fit.
    """

    def backbone(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in named.items() if name.startswith(_BACKBONE)}

    expected = backbone(classifier.state_dict())
    fit = fit_state_dict(backbone(fill_shared(tensors, expected)), expected)
    fit.require_complete(path)
    classifier.load_state_dict(fit.tensors, strict=False)


def _find(source: Path) -> Path:
    if not source.is_dir():
        return source
    for name in CHECKPOINT_FILES:
        if (source / name).is_file():
            return source / name
    raise InputError(f"{source}: holds neither {' nor '.join(CHECKPOINT_FILES)}")
