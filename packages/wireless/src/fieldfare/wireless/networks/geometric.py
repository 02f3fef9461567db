# SPDX-License-Identifier: Apache-2.0
"""Message passing on graphs of any shape, by torch_geometric.

Imported by the ragged paths when they run, and by nothing else: torch_geometric takes longer to
load than torch itself. The parameters stay in the layers; what is here has none.
"""

import functools
import warnings

from torch import Tensor

with warnings.catch_warnings():  # its import causes notices in torch
    warnings.simplefilter("ignore", FutureWarning)
    from torch_geometric.nn import MessagePassing


class SetMessages(MessagePassing):  # type: ignore[misc]  # it ships no types
    """Mean and maximum over the members of every set of what they send."""

    def __init__(self) -> None:
        super().__init__(aggr=["mean", "max"])

    def forward(self, sent: Tensor, edges: Tensor, count: int) -> Tensor:
        """What every set receives.

        Args:
            sent: (n, F).
            edges: (2, n) int64, every node and its set.
            count: of sets.

        Returns:
            (count, 2 F).
        """
        found: Tensor = self.propagate(edges, sent=sent, size=(len(sent), count))
        return found

    def message(self, sent_j: Tensor) -> Tensor:
        """Of every node to its set, (n, F)."""
        return sent_j


@functools.cache
def set_messages() -> SetMessages:
    """The one instance."""
    return SetMessages()
