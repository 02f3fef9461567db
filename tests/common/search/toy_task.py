# SPDX-License-Identifier: Apache-2.0
"""A task whose networks cost nothing to train: quality is a formula of the genes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from fieldfare.common.elastic.genes import Choice, Space
from fieldfare.common.search.tasks import Given
from fieldfare.common.weights import ModelCard, save_with_page

SPACE = Space(
    {"depth": (1, 2, 3, 4), "width": (8, 16, 24, 32, 48, 64), "rate": (0.1, 0.2, 0.4, 0.8)}
)


class ToyTask:
    """Deeper is better, wider a little, and there is a best rate; each unit takes depth * width."""

    space = SPACE
    recipe = ("rate",)
    unit = "toy"
    metric = "what the formula gives"
    command = "toy infer"

    def __init__(
        self,
        given: Given | None = None,
        interrupt_at: int | None = None,
        fails: Exception | None = None,
    ) -> None:
        self.identity: Mapping[str, Any] = {"steps": given.steps if given else None}
        self.presets = {
            "small": SPACE.canonical({"depth": 1, "width": 16, "rate": 0.1}),
            "large": SPACE.canonical({"depth": 4, "width": 64, "rate": 0.1}),
        }
        self.asked: list[Choice] = []
        self.timed: list[Choice] = []
        self._interrupt_at, self._fails = interrupt_at, fails

    def macs(self, choice: Choice) -> float:
        return float(1000 * choice.number("depth") * choice.number("width"))

    def runner(self, choice: Choice) -> Callable[[], object]:
        self.timed.append(choice)
        return lambda: None

    def evaluate(self, choice: Choice, target: Path, work: Path) -> float:
        if len(self.asked) == self._interrupt_at:
            raise KeyboardInterrupt
        if self._fails:
            raise self._fails
        self.asked.append(choice)
        work.mkdir(parents=True)
        depth, width, rate = (float(choice[gene]) for gene in SPACE.genes)
        quality = 1 - 0.5 / depth - 1 / width - 0.2 * abs(rate - 0.4)
        card = ModelCard(name=target.stem, task="toy", summary="Toy.", config=dict(choice))
        save_with_page(target, {"quality": torch.tensor([quality])}, card)
        return quality
