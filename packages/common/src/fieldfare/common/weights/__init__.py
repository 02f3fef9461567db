# SPDX-License-Identifier: Apache-2.0
"""Model weights: self-describing safetensors files, their cards, and published checkpoints."""

from .card import Metric, ModelCard
from .convert import Fit, fit_state_dict, load_checkpoint
from .registry import available, build_network, from_pretrained, locate
from .store import (
    halved,
    load_model_file,
    load_part,
    read_card,
    save_model_file,
    save_with_page,
)

__all__ = [
    "Fit",
    "Metric",
    "ModelCard",
    "available",
    "build_network",
    "fit_state_dict",
    "from_pretrained",
    "halved",
    "load_checkpoint",
    "load_model_file",
    "load_part",
    "locate",
    "read_card",
    "save_model_file",
    "save_with_page",
]
