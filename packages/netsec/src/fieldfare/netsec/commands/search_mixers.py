# SPDX-License-Identifier: Apache-2.0
"""What `fieldfare search traffic-mixers LABELS.csv` searches: what mixes tokens, block by block.

Softmax attention, linear attention or the scan in each block; Liu et al. 2022, *Neural Architecture
Search on Efficient Transformers and Beyond* (arXiv 2207.13955), let each layer choose between the
first two. A gene of a block that is not there is silent.
"""

import dataclasses

from fieldfare.common.elastic.genes import Choice, Space, Value

from ..networks.netmamba.config import MIXERS, NetMambaConfig
from .search import TrafficSearch

DEPTHS = (1, 2, 3)
SPACE = Space(
    {
        "packets": (1, 2, 3, 5),
        "payload": (16, 80),
        "width": (32, 64, 128),
        "depth": DEPTHS,
        **{f"mixer{number}": MIXERS for number in DEPTHS},
        "learning_rate": (1e-3, 2e-3, 4e-3),
    },
    {f"mixer{number}": ("depth", DEPTHS[number - 1 :]) for number in DEPTHS[1:]},
)
HAND_MADE: dict[str, Value] = {
    "packets": 5,
    "payload": 80,
    "width": 128,
    "depth": 3,
    **{f"mixer{number}": "scan" for number in DEPTHS},
    "learning_rate": 2e-3,
}


class MixersSearch(TrafficSearch):
    """A `search.tasks.Task`, as `TrafficSearch` is, over NetMambas with attention in some blocks.

    Raises:
        InputError: not one LABELS.csv, or one without the splits train and val.
    """

    kind = "traffic-mixers"
    space = SPACE
    hand_made = HAND_MADE

    def config(self, choice: Choice) -> NetMambaConfig:
        """Of the genes."""
        depth = choice.number("depth")
        mixers = tuple(str(choice[f"mixer{number}"]) for number in range(1, depth + 1))
        return dataclasses.replace(super().config(choice), mixers=mixers)
