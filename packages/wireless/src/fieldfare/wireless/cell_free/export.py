# SPDX-License-Identifier: Apache-2.0
"""wl-power export: the network as ONNX, for any batch, users and access points."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from fieldfare.common import console, files
from fieldfare.common.efficiency import export as common_export

from ..channels.drops import draw_networks
from ..networks.models import load_power_network
from ..networks.power import IcgnnPower
from ..signals.cell_free import CellFree

TOLERANCE = 1e-5


class PowerGraph(nn.Module):
    """The network on plain tensors; pilots are taken as orthogonal.

    Args:
        network: the trained network.
    """

    def __init__(self, network: IcgnnPower) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, beta: Tensor, gamma: Tensor, power: Tensor, antennas: Tensor, serving: Tensor
    ) -> Tensor:
        """mu as a share of each access point's amplitude limit, (B, K, L).

        Args:
            beta, gamma: (B, K, L); power, antennas: (B, L); serving: (B, K, L) bool.
        """
        network = CellFree(beta, gamma, power, antennas, serving, None)
        mu: Tensor = self.network(network)
        return mu / power.sqrt().unsqueeze(-2)


def export(output: Path, options: Mapping[str, Any]) -> None:
    """Write ONNX and say how closely it agrees."""
    files.check_output(output, overwrite=options["overwrite"])
    network, card = load_power_network(options["model"])
    drawn = draw_networks(3, 4, 7, 2, serving_aps=5, generator=torch.Generator().manual_seed(0))
    inputs = [drawn.beta, drawn.gamma, drawn.power, drawn.antennas, drawn.serving]
    names = ["beta", "gamma", "power", "antennas", "serving"]
    batch, users, aps = (Dim(name) for name in ("batch", "users", "aps"))
    grid, row = {0: batch, 1: users, 2: aps}, {0: batch, 1: aps}
    difference = common_export.export_onnx(
        PowerGraph(network),
        [part.contiguous() for part in inputs],
        output,
        input_names=names,
        output_name="amplitude_share",
        dynamic_shapes=dict(zip(names, (grid, grid, row, row, grid), strict=True)),
        tolerance=TOLERANCE,
        install="fieldfare-wireless[onnx]",
    )
    console.say(f"{card.name}: ONNX Runtime and torch agree within {difference:.1e}")
    console.emit({}, as_json=False, text=str(output))
