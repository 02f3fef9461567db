# SPDX-License-Identifier: Apache-2.0
"""net-traffic export."""

from fieldfare.common import console
from fieldfare.common.commands import export as common

from ..inference.classifier import load_classifier
from ..inference.export import export_judged
from ..options import ExportOptions


def export(options: ExportOptions) -> None:
    """Write ONNX; ONNX Runtime must agree with torch before it is kept."""
    found, card = load_classifier(options.model)

    def write() -> float:
        console.say("exporting takes about a minute", quiet=options.quiet)
        return export_judged(found, options.output)

    common.export(write, options, name=card.name)
