# SPDX-License-Identifier: Apache-2.0
"""Trained networks by name or path, and their files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fieldfare.common.weights import Metric, ModelCard, from_pretrained, save_model_file

from .power import IcgnnPower
from .precoder import IcgnnPrecoder

PRECODING_TASK = "precoding"
POWER_TASK = "power"


def load_precoder_network(name_or_path: str) -> tuple[IcgnnPrecoder, ModelCard]:
    """A packaged precoding network by name or a file by path, in evaluation mode, with its card.

    Raises:
        InputError: no such model, or a file of another task.
    """
    return from_pretrained(name_or_path, PRECODING_TASK, lambda config: IcgnnPrecoder(**config))


def load_power_network(name_or_path: str) -> tuple[IcgnnPower, ModelCard]:
    """A packaged power network, likewise."""
    return from_pretrained(name_or_path, POWER_TASK, lambda config: IcgnnPower(**config))


def save_model(
    path: Path,
    network: IcgnnPrecoder | IcgnnPower,
    summary: str,
    *,
    metrics: Sequence[Metric] = (),
    **card: Any,
) -> ModelCard:
    """Write a network and its card: a safetensors file, and the card as a page beside it.

    Args:
        path: ends in .safetensors; its stem is the model's name.
        network: its class is the task.
        summary: one sentence.
        metrics, card: further fields of `ModelCard`.

    Returns:
        The card.
    """
    task = PRECODING_TASK if isinstance(network, IcgnnPrecoder) else POWER_TASK
    written = ModelCard(
        name=path.stem,
        task=task,
        summary=summary,
        config=network.config,
        metrics=tuple(metrics),
        **{"weights_licence": "Apache-2.0", **card},
    )
    save_model_file(path, network.state_dict(), written)
    path.with_suffix(".md").write_text(written.to_markdown())
    return written
