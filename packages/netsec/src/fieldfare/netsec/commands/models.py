# SPDX-License-Identifier: Apache-2.0
"""net-traffic models."""

from fieldfare.common.commands.models import list_models
from fieldfare.common.console.shared import JsonOptions

from ..networks.architectures import TASK


def models(options: JsonOptions) -> None:
    """Print every packaged model's card in short."""
    list_models(TASK, options)
