# SPDX-License-Identifier: Apache-2.0
"""wl-power export."""

from functools import partial

from fieldfare.common.commands import export as common_export

from ...networks.models import load_power_network
from ..export import write_onnx
from ..options import ExportOptions


def export(options: ExportOptions) -> None:
    """Write ONNX and say how closely it agrees."""
    network, card = load_power_network(options.model)
    common_export.export(partial(write_onnx, network, options.output), options, name=card.name)
