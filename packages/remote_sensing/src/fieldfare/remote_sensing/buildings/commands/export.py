# SPDX-License-Identifier: Apache-2.0
"""rs-buildings export."""

from fieldfare.common.commands import export as writing
from fieldfare.common.errors import InputError

from ..networks.building_network import BuildingNetwork, expert_of
from ..networks.export import export_onnx
from ..networks.models import describe, load_any, spoken
from ..options import ExportOptions


def export(options: ExportOptions) -> None:
    """Write ONNX and say how closely it agrees."""
    network = _network(options)
    if options.depth is not None and options.depth != network.depth:
        network = network.cut(options.depth)
    writing.export(
        lambda: export_onnx(network, options.output, tile=options.tile),
        options,
        name=describe(network.config),
    )


def _network(options: ExportOptions) -> BuildingNetwork:
    """The model; of one with experts that for `--gsd`."""
    network, _ = load_any(options.model)
    experts = network.config.experts
    if not experts:
        if options.gsd:
            raise InputError(f"--gsd {options.gsd:g}: {options.model} has no experts to choose by")
        return network
    if not options.gsd:
        raise InputError(
            f"{options.model}: has experts for {spoken(experts)} m per pixel; say with --gsd for "
            "which imagery it shall be"
        )
    return network.dense(expert_of(network.config, options.gsd))
