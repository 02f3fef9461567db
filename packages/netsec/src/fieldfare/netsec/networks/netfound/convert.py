# SPDX-License-Identifier: Apache-2.0
"""Published netFound checkpoints (snlucsb/netFound-small, -base, -large), and their encoders.

The network computes as published (`compat`): the weights were trained so.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fieldfare.common.errors import InputError

from ..conversion import Published, Shapes, load_part
from .config import HEADER_TOKENS, VOCABULARY, NetFoundConfig
from .network import NetFoundClassifier
from .pretraining import NetFoundPretraining

PACKETS_PER_BURST = 6

_EMBEDDINGS = "base_transformer.embeddings"
_ENCODER = "base_transformer.encoder"
_BACKBONE = ("base_transformer.", "attentivePooling.")
_SHARED = (
    (rf"{_EMBEDDINGS}\.word_embeddings\.weight", r"lm_head\.decoder\.weight"),
    (r"lm_head\.bias", r"lm_head\.decoder\.bias"),
    (rf"{_ENCODER}\.layer\.\d+\.position_embeddings\.weight",),
)
"""Tensors that are one and the same under several names; files may hold only one of them."""


def config_of(shapes: Shapes) -> NetFoundConfig:
    """See `conversion.Published`."""
    vocabulary, hidden = shapes.of(f"{_EMBEDDINGS}.word_embeddings.weight")
    burst_length, head_width = shapes.of(f"{_ENCODER}.burst_positions.weight")
    flow_positions, _ = shapes.of(f"{_ENCODER}.flow_positions.weight")
    doubled, _ = shapes.of(f"{_ENCODER}.layer.0.burst_encoder.mlp.Wi.weight")
    if vocabulary != VOCABULARY:
        raise InputError(f"{shapes.path}: has {vocabulary} tokens; netFound has {VOCABULARY}")
    per_packet, rest = divmod(burst_length - 1, PACKETS_PER_BURST)
    if rest or per_packet < HEADER_TOKENS or not head_width or hidden % head_width:
        raise InputError(
            f"{shapes.path}: bursts of {burst_length} tokens with attention heads {head_width} "
            "wide fit no netFound"
        )
    return NetFoundConfig(
        hidden_size=hidden,
        layers=shapes.depth(f"{_ENCODER}.layer"),
        heads=hidden // head_width,
        intermediate_size=doubled // 2,
        payload_tokens=per_packet - HEADER_TOKENS,
        max_bursts=flow_positions - 1,
        packets_per_burst=PACKETS_PER_BURST,
        compat=True,
    )


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
    load_part(classifier, backbone(fill_shared(tensors, expected)), expected, path)


PUBLISHED = Published(
    name="netfound",
    title="netFound",
    paper="arXiv 2310.17025",
    head="classifier.weight",
    config=config_of,
    classifier=NetFoundClassifier,
    pretraining=NetFoundPretraining,
    files=("model.safetensors", "pytorch_model.bin"),
    complete=fill_shared,
)
