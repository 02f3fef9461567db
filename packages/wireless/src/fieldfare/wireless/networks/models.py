# SPDX-License-Identifier: Apache-2.0
"""Trained networks by name or path."""

from collections.abc import Sequence
from typing import Any

from fieldfare.common.weights import ModelCard, from_pretrained, locate, read_card

from .power import IcgnnPower
from .precoder import IcgnnPrecoder
from .rounded import RoundedPrecoder

PRECODING_TASK = "precoding"
POWER_TASK = "power"


def load_precoder_network(name_or_path: str) -> tuple[IcgnnPrecoder, ModelCard]:
    """A packaged precoding network by name or a file by path, in evaluation mode, with its card.

    Raises:
        InputError: no such model, or a file of another task.
    """
    return from_pretrained(name_or_path, PRECODING_TASK, _precoder)


def _precoder(config: dict[str, Any]) -> IcgnnPrecoder:
    return RoundedPrecoder(**config) if "bits" in config else IcgnnPrecoder(**config)


def precoder_size(name_or_path: str) -> dict[str, str]:
    """What a precoding network takes on disk and what its numbers are, for people."""
    path = locate(name_or_path, PRECODING_TASK)
    bits = read_card(path).config.get("bits")
    numbers = "32 bits"
    if bits:
        weights, inputs = (sorted({pair[part] for pair in bits.values()}) for part in (0, 1))
        numbers = f"weights of {_list(weights)} bits, inputs of layers of {_list(inputs)} bits"
    return {"on disk": f"{path.stat().st_size:,} bytes", "numbers": numbers}


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def load_power_network(name_or_path: str) -> tuple[IcgnnPower, ModelCard]:
    """A packaged power network, likewise."""
    return from_pretrained(name_or_path, POWER_TASK, lambda config: IcgnnPower(**config))


def task_of(network: IcgnnPrecoder | IcgnnPower) -> str:
    """As the cards name it."""
    return PRECODING_TASK if isinstance(network, IcgnnPrecoder) else POWER_TASK
