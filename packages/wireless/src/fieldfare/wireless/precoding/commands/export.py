# SPDX-License-Identifier: Apache-2.0
"""wl-precode export."""

from functools import partial

from fieldfare.common import console
from fieldfare.common.commands import export as common_export

from ...networks.models import load_precoder_network
from ..export import write_onnx
from ..options import ExportOptions


def export(options: ExportOptions) -> None:
    """Write ONNX and say how closely it agrees."""
    network, card = load_precoder_network(options.model)
    say = partial(console.say, quiet=options.quiet)
    write = partial(write_onnx, network, options.output, say)
    common_export.export(write, options, name=card.name)
