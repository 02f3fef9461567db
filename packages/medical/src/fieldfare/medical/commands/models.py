# SPDX-License-Identifier: Apache-2.0
"""med-seg models."""

from fieldfare.common.commands.models import list_models
from fieldfare.common.console.shared import JsonOptions
from fieldfare.common.weights import ModelCard

from ..networks.config import NetworkConfig
from ..networks.models import TASK, describe


def models(options: JsonOptions) -> None:
    """Print every packaged model's card in short."""
    list_models(TASK, options, more=_network, baseline="not a medical device")


def _network(card: ModelCard) -> dict[str, str]:
    return {"network": describe(NetworkConfig.from_dict(card.config))}
