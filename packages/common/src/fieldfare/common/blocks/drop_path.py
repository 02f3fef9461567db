# SPDX-License-Identifier: Apache-2.0
"""ScheduledDropPath: paths are dropped more often the deeper they lie and the longer it trains.

Zoph et al. 2018, *Learning Transferable Architectures for Scalable Image Recognition* (arXiv
1707.07012), section 3; the rise with depth as in the authors' published code.
"""

import torch
from torch import Tensor, nn

from .steps import Stepped


def keep_probability(final: float, *, depth: float = 1.0, time: float = 1.0) -> float:
    """1 - time * depth * (1 - final).

    Args:
        final: of the deepest cell at the end of training.
        depth: (cell + 1) / cells with cells counted from 0; 1 for no rise with depth.
        time: share of the schedule that is done, above 1 taken as 1; 1 for no rise with time.
    """
    return 1 - min(1.0, time) * depth * (1 - final)


class ScheduledDropPath(Stepped):
    """Drops whole examples of a path, in training only, and divides the others by what is kept.

    Args:
        final: probability to keep a path at the end of the schedule, this cell's depth counted in.
        steps: optimiser steps of the schedule.

    The steps must be counted, see `Stepped`.

    Raises:
        ValueError: final not in (0, 1] or steps below 1.
    """

    def __init__(self, final: float, steps: int) -> None:
        super().__init__()
        if not 0 < final <= 1 or steps < 1:
            raise ValueError(f"final {final} must be in (0, 1], steps {steps} at least 1")
        self.final, self.steps = final, steps

    @property
    def keep(self) -> float:
        """Probability to keep a path at this step."""
        return keep_probability(self.final, time=int(self.done) / self.steps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> the same shape; in training mode zeros for dropped examples."""
        if not self.training or (keep := self.keep) == 1:
            return x
        kept = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) < keep
        return x * kept / keep


def schedule_drop_path(model: nn.Module, steps: int) -> int:
    """Let the drop paths of a timm model, most of which rise with depth, rise with time as well.

    Args:
        model: changed in place.
        steps: optimiser steps until each has the probability it was built with.

    Returns:
        How many were replaced; 0 means that the model has none to schedule.
    """
    from timm.layers import DropPath  # imports torch's compiler, which takes a second

    replaced = 0
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, DropPath) and child.drop_prob:
                if not child.scale_by_keep:
                    raise ValueError(f"{name} does not scale by keep, which a schedule needs")
                scheduled = ScheduledDropPath(1 - child.drop_prob, steps)
                setattr(parent, name, scheduled.train(child.training))
                replaced += 1
    return replaced
