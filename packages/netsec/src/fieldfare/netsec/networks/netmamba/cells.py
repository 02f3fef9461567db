# SPDX-License-Identifier: Apache-2.0
"""Cells in place of NetMamba's blocks: convolutions along the tokens of a flow."""

import json

from torch import Tensor, nn

from fieldfare.common.search.cell_network import CellNetwork, plan_of

from .config import NetMambaConfig


class CellTrunk(nn.Module):
    """(B, T, embed_dim) -> (B, 1, embed_dim), the mean over what cells make of the tokens.

    Group norms: what a flow gets does not depend on those beside it.

    Args:
        config: with `cells`.

    Raises:
        ValueError: `cells` is no plan of a network of cells.
    """

    def __init__(self, config: NetMambaConfig) -> None:
        super().__init__()
        try:
            plan = plan_of(json.loads(config.cells))
        except (TypeError, RecursionError) as error:
            raise ValueError(f"cells: no plan of cells ({error})") from None
        self.network = CellNetwork(1, config.embed_dim, plan, "group")
        self.project = nn.Linear(self.network.channels, config.embed_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """See the class."""
        found: Tensor = self.project(self.network(tokens.mT).mean(dim=2, keepdim=True).mT)
        return found
