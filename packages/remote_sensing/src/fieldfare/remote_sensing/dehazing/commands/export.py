# SPDX-License-Identifier: Apache-2.0
"""rs-dehaze export and convert."""

from pathlib import Path

from fieldfare.common.commands import export as writing
from fieldfare.common.console.shared import ConvertOptions
from fieldfare.common.errors import InputError

from ..networks import convert as conversion
from ..networks.export import export_onnx
from ..networks.model import load_model
from ..options import ExportOptions


def export(options: ExportOptions) -> None:
    """Write ONNX and say how closely it agrees."""

    def write() -> float:
        model, _ = load_model(options.model)
        if options.tile % model.stride or options.tile < model.least_side:
            raise InputError(
                f"--tile {options.tile}: give a multiple of {model.stride}, "
                f"at least {model.least_side}"
            )
        return export_onnx(model, options.output, tile=options.tile)

    writing.export(write, options)


def convert(published: Path, options: ConvertOptions) -> None:
    """Convert and say what was found."""

    def write() -> str:
        card, parameters = conversion.convert(published, options.output)
        network = card.config
        return (
            f"{parameters:,} parameters fit: width {network['width']}, blocks {network['blocks']}"
        )

    writing.convert(write, options)
