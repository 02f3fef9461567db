# SPDX-License-Identifier: Apache-2.0
"""What `fieldfare search traffic-experts LABELS.csv` searches: experts per token, block by block.

NetMamba's blocks get a feed-forward layer of 8 experts each; how many of them a token runs is a
gene of each block, and one of all whether routers are learnt or fixed at random (SMoE-Dropout,
arXiv 2303.01610), which a learnt one should beat. A gene of a block that is not there is silent.
"""

from fieldfare.common.elastic.genes import Choice, Space, Value
from fieldfare.common.experts.recipes import Kind

from ..networks.experts import ExpertsConfig
from ..networks.netmamba.experts import EXPANSION
from .search import FLOWS, TrafficSearch

COUNT = 8
DEPTHS = (1, 2, 3)
KINDS: tuple[Kind, ...] = ("random", "learned")
SPACE = Space(
    {
        "packets": (1, 2, 3, 5),
        "payload": (16, 80),
        "width": (32, 64, 128),
        "depth": DEPTHS,
        "router": KINDS,
        **{f"experts{number}": (1, 2, 4, COUNT) for number in DEPTHS},
        "learning_rate": (1e-3, 2e-3, 4e-3),
    },
    {f"experts{number}": ("depth", DEPTHS[number - 1 :]) for number in DEPTHS[1:]},
)
HAND_MADE: dict[str, Value] = {
    "packets": 5,
    "payload": 80,
    "width": 128,
    "depth": 3,
    "router": "learned",
    **{f"experts{number}": COUNT // 2 for number in DEPTHS},
    "learning_rate": 2e-3,
}


class ExpertsSearch(TrafficSearch):
    """A `search.tasks.Task`, as `TrafficSearch` is, over NetMambas with experts in their blocks.

    Raises:
        InputError: not one LABELS.csv, or one without the splits train and val.
    """

    kind = "traffic-experts"
    space = SPACE
    hand_made = HAND_MADE
    by_hand = "half of the experts in each block"

    def experts(self, choice: Choice) -> ExpertsConfig:
        """Of the genes."""
        depth = choice.number("depth")
        return ExpertsConfig(
            kind=next(kind for kind in KINDS if kind == choice["router"]),
            count=COUNT,
            by_layer=tuple(choice.number(f"experts{number}") for number in range(1, depth + 1)),
        )

    def macs(self, choice: Choice) -> float:
        """As of `TrafficSearch`, and of the experts that run."""
        config, experts = self.config(choice), self.experts(choice)
        layer = 2 * EXPANSION * config.embed_dim**2
        ran = sum(experts.by_layer) / experts.count * layer
        return super().macs(choice) + FLOWS * (config.tokens + 1) * ran
