# SPDX-License-Identifier: Apache-2.0
"""Deep model assembling: a deep network trained part by part, each within a small meta network.

Ni et al. 2022, *Deep Model Assembling* (arXiv 2212.04129): a meta network with one block a stage is
trained end to end; then each stage of the deep network is trained inside it, in the place of its
own block, while all else of the meta network stays as it is; at last the stages are put together
and fine-tuned. A machine only ever holds one deep stage.
"""

import copy
from collections.abc import Callable, Sequence

from torch import Tensor, nn


class Staged(nn.Module):
    """A network in stages: begin, the stages one after another, end.

    Args:
        begin: belongs to the first stage (patch embedding, stem).
        end: belongs to the last one (norm, head).
    """

    def __init__(self, begin: nn.Module, stages: Sequence[nn.Module], end: nn.Module) -> None:
        super().__init__()
        self.begin, self.end = begin, end
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> Tensor:
        """Through all of it."""
        x = self.begin(x)
        for stage in self.stages:
            x = stage(x)
        found: Tensor = self.end(x)
        return found


class Incubation(nn.Module):
    """The meta network with one deep stage in the place of its own.

    Only that stage trains; with the first one `begin` does too, with the last one `end`. Gradients
    pass through the frozen stages behind it and stop before it.

    Args:
        meta: trained end to end; its parameters are frozen from now on.
        deep: the stage.
        index: whose place it takes.

    Raises:
        ValueError: no such stage.
    """

    def __init__(self, meta: Staged, deep: nn.Module, index: int) -> None:
        super().__init__()
        if not 0 <= index < len(meta.stages):
            raise ValueError(f"stage {index}: the meta network has {len(meta.stages)}")
        self.index = index
        self.meta = meta.requires_grad_(False)
        self.deep = deep
        if index == 0:
            self.meta.begin.requires_grad_(True)
        if index == len(meta.stages) - 1:
            self.meta.end.requires_grad_(True)

    def train(self, mode: bool = True) -> "Incubation":
        """The frozen stages stay in evaluation mode, so that their statistics do too."""
        super().train(mode)
        for number, stage in enumerate(self.meta.stages):
            stage.train(mode and number == self.index)
        self.meta.begin.train(mode and self.index == 0)
        self.meta.end.train(mode and self.index == len(self.meta.stages) - 1)
        return self

    def trained(self) -> list[nn.Parameter]:
        """What the optimiser gets."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def forward(self, x: Tensor) -> Tensor:
        """Through the meta network, with the deep stage."""
        x = self.meta.begin(x)
        for number, stage in enumerate(self.meta.stages):
            x = self.deep(x) if number == self.index else stage(x)
        found: Tensor = self.meta.end(x)
        return found


def assemble(begin: nn.Module, stages: Sequence[nn.Module], end: nn.Module) -> Staged:
    """The deep network out of its trained stages, all of it ready for fine-tuning.

    Args:
        begin: as trained with the first stage.
        end: as trained with the last.
    """
    return Staged(begin, stages, end).requires_grad_(True)


def incubate(
    meta: Staged, build: Callable[[int], nn.Module], train: Callable[[Incubation], None]
) -> Staged:
    """Train every deep stage in its place and put them together.

    `begin` and `end` are trained with the first and the last stage, from copies, so every stage
    meets the meta network as it was.

    Args:
        meta: trained end to end; unchanged.
        build: number of a stage -> the deep stage, untrained.
        train: trains an incubation's `trained()` parameters.
    """
    begin, end = meta.begin, meta.end
    stages: list[nn.Module] = []
    for index in range(len(meta.stages)):
        own = Incubation(copy.deepcopy(meta), build(index), index)
        train(own)
        stages.append(own.deep)
        if index == 0:
            begin = own.meta.begin
        if index == len(meta.stages) - 1:
            end = own.meta.end
    return assemble(begin, stages, end)
