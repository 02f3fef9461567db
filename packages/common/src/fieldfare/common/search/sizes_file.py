# SPDX-License-Identifier: Apache-2.0
"""The weights of all sizes in one file, so that any size can be cut out of them later."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..elastic.network import ElasticNet
from ..errors import InputError
from ..weights import ModelCard, load_model_file, save_model_file

SIZES = "{}, all sizes"
"""The card's task: nothing but a search or another cut can use the file."""


def save_elastic(path: Path, network: ElasticNet, task: str, config: Mapping[str, Any]) -> None:
    """Write the weights, kernels' maps among them.

    Args:
        task: of the networks that are cut out.
        config: of the largest one.
    """
    summary = f"{network.space.count()} networks on one set of weights."
    card = ModelCard(path.stem, SIZES.format(task), summary, dict(config))
    save_model_file(path, network.state_dict(), card)


def load_elastic(path: Path, task: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration of the largest network, and the weights of `ElasticNet`.

    Raises:
        InputError: no such file, or one of something else.
    """
    card, tensors = load_model_file(path)
    if card.task != SIZES.format(task):
        raise InputError(f"{path}: is of {card.task}, not of {SIZES.format(task)}")
    return card.config, tensors
