# SPDX-License-Identifier: Apache-2.0
"""med-seg export."""

from fieldfare.common.commands import export as common

from ..networks.export import export_onnx
from ..networks.models import load_model
from ..options import ExportOptions


def export(options: ExportOptions) -> None:
    """Write ONNX and say how closely it agrees."""
    network, card = load_model(options.model)

    def write() -> float:
        return export_onnx(network, options.output, tile=options.tile)

    common.export(write, options, name=card.name)
