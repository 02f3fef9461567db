# SPDX-License-Identifier: Apache-2.0
"""Trained networks by name or path."""

from fieldfare.common.weights import ModelCard, from_pretrained

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


def task_of(network: IcgnnPrecoder | IcgnnPower) -> str:
    """As the cards name it."""
    return PRECODING_TASK if isinstance(network, IcgnnPrecoder) else POWER_TASK
