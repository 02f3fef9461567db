# SPDX-License-Identifier: Apache-2.0
"""rs-buildings export."""

from fieldfare.common.commands import export as writing

from ..networks.export import export_onnx
from ..networks.models import describe, load_model
from ..options import ExportOptions


def export(options: ExportOptions) -> None:
    """Write ONNX and say how closely it agrees."""
    network, _ = load_model(options.model)
    if options.depth is not None and options.depth != network.depth:
        network = network.cut(options.depth)
    writing.export(
        lambda: export_onnx(network, options.output, tile=options.tile),
        options,
        name=describe(network.config),
    )
