# SPDX-License-Identifier: Apache-2.0
"""The network as ONNX, for any batch, users and access points."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from fieldfare.common.efficiency.export import export_onnx
from fieldfare.common.errors import InputError

from ..channels.drops import draw_networks
from ..networks.power import IcgnnPower
from ..signals.cell_free import CellFree
from .options import REFINEMENT, SATISFACTION

TOLERANCE = 1e-5


class PowerGraph(nn.Module):
    """The network and its plain steps on plain tensors; pilots are taken as orthogonal.

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
        mu: Tensor = self.network(network, None, REFINEMENT)
        return mu / power.sqrt().unsqueeze(-2)


def write_onnx(network: IcgnnPower, target: Path) -> float:
    """Write a power network as ONNX.

    Returns:
        The largest difference between ONNX Runtime and torch.

    Raises:
        InputError: the export packages are not installed, or a network that needs profiles.
        RunError: ONNX Runtime disagrees; nothing is written.
    """
    if network.objective == SATISFACTION:
        raise InputError("a network trained for satisfaction takes profiles, which ONNX does not")
    drawn = draw_networks(3, 4, 7, 2, serving_aps=5, generator=torch.Generator().manual_seed(0))
    inputs = [drawn.beta, drawn.gamma, drawn.power, drawn.antennas, drawn.serving]
    names = ["beta", "gamma", "power", "antennas", "serving"]
    batch, users, aps = (Dim(name) for name in ("batch", "users", "aps"))
    grid, row = {0: batch, 1: users, 2: aps}, {0: batch, 1: aps}
    return export_onnx(
        PowerGraph(network),
        [part.contiguous() for part in inputs],
        target,
        input_names=names,
        output_name="amplitude_share",
        dynamic_shapes=dict(zip(names, (grid, grid, row, row, grid), strict=True)),
        tolerance=TOLERANCE,
        install="fieldfare-wireless[onnx]",
    )
