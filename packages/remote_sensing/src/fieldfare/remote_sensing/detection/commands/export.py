# SPDX-License-Identifier: Apache-2.0
"""rs-detect export."""

from fieldfare.common.commands import export as writing

from ..networks.export import export_onnx
from ..networks.models import load_model
from ..options import ExportOptions


def export(options: ExportOptions) -> None:
    """Write ONNX and say how closely it agrees."""
    network, card = load_model(options.model)
    writing.export(
        lambda: export_onnx(network, options.output, tile=options.tile), options, name=card.name
    )
