# SPDX-License-Identifier: Apache-2.0
"""What `fieldfare search traffic-cells LABELS.csv` searches: cells over the tokens of a flow.

NASNet's space (Zoph et al. 2018, arXiv 1707.07012) in one dimension: what each node of a normal and
of a reduction cell adds up, how wide and how many they are, and what is read of a flow.
"""

import dataclasses
import json

from fieldfare.common.budget.collect import operations
from fieldfare.common.elastic.genes import Choice, Space, Value
from fieldfare.common.search.cell_network import OPERATIONS, CellPlan, Genes
from fieldfare.common.search.cells import cell_space

from ..networks.architectures import preset
from ..networks.netmamba.config import NetMambaConfig
from .search import TrafficSearch

NODES, EMBEDDING, KEEP = 3, 64, 0.9
"""Of a cell; width of a token; share of the last cell's paths that is kept in the end."""

SPACE = cell_space(
    Space(
        {
            "packets": (1, 2, 3, 5),
            "payload": (16, 80),
            "width": (8, 16, 32),
            "repeats": (1, 2),
            "learning_rate": (1e-3, 2e-3, 4e-3),
        }
    ),
    NODES,
    OPERATIONS,
)

CHAIN = {1: (1, "sep3", 1, "skip"), 2: (2, "sep3", 2, "skip"), 3: (3, "sep3", 3, "skip")}
"""A chain of residual separable convolutions, node by node."""

HAND_MADE: dict[str, Value] = {
    "packets": 5,
    "payload": 80,
    "width": 32,
    "repeats": 2,
    "learning_rate": 2e-3,
    **{
        f"{kind}{node}_{name}{side}": terms[2 * side - 2 + (name == "op")]
        for kind in SPACE.kinds
        for node, terms in CHAIN.items()
        for side in (1, 2)
        for name in ("from", "op")
    },
}


class CellsSearch(TrafficSearch):
    """A `search.tasks.Task`, as `TrafficSearch` is, over networks of cells.

    Raises:
        InputError: not one LABELS.csv, or one without the splits train and val.
    """

    kind = "traffic-cells"
    space = SPACE
    hand_made = HAND_MADE
    by_hand = "chain of residual convolutions"

    def config(self, choice: Choice) -> NetMambaConfig:
        """NetMamba's tokens, read by cells."""
        _, small = preset("netmamba/small")
        packets = choice.number("packets")
        plan = CellPlan(
            genes(choice, "normal"),
            genes(choice, "reduction"),
            width=choice.number("width"),
            repeats=choice.number("repeats"),
            keep=KEEP,
            steps=self.steps,
        )
        found: NetMambaConfig = dataclasses.replace(
            small,
            packets=packets,
            byte_length=packets * (small.header_bytes + choice.number("payload")),
            embed_dim=EMBEDDING,
            cells=json.dumps(plan.to_dict()),
        )
        return found

    def macs(self, choice: Choice) -> float:
        """Of convolutions and linear layers, as torch counts them in a pass."""
        return float(operations(self.runner(choice)))


def genes(choice: Choice, kind: str) -> Genes:
    """A cell of a choice, by names of operations."""
    return tuple(
        ((first[0], OPERATIONS[first[1]]), (second[0], OPERATIONS[second[1]]))
        for first, second in SPACE.cell(choice, kind)
    )
