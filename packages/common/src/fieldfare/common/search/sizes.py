# SPDX-License-Identifier: Apache-2.0
"""What a package registers so that `fieldfare elastic TASK` can train many sizes at once.

The entry-point group `fieldfare.elastics` holds, under the task's name, a class that is called with
a `search.tasks.Given`.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils.data import Dataset

from ..elastic.genes import Choice, Space
from ..elastic.network import ElasticNet
from ..errors import InputError
from .tasks import Given

GROUP = "fieldfare.elastics"


class ElasticTask(Protocol):
    """A space of sizes that share their weights.

    Attributes:
        task: as in the models' cards.
        space: of the sizes; genes in the order of cost.
        unit: what cost and time are of, in words.
        metric: what quality is, and on which data, in words.
        command: that uses the networks, with `--model`.
        settings: `training.TrainSettings`, its steps those of `Given` or the task's own.
    """

    task: str
    space: Space
    unit: str
    metric: str
    command: str
    settings: Any

    def elastic(self, init: str | None) -> ElasticNet:
        """The network of all sizes, of fresh weights or those of a model of the largest size.

        Raises:
            InputError: no such model, or one of another size.
        """

    def config(self) -> Mapping[str, Any]:
        """Of the largest network, after `elastic`; fit for a card."""

    def lessons(self) -> Dataset[Any]:
        """What is trained on."""

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        """Of one size; a scalar."""

    def macs(self, choice: Choice) -> float:
        """Multiply-accumulates of one unit."""

    def runner(self, choice: Choice) -> Callable[[], object]:
        """What runs one unit through an untrained network of this size."""

    def keep_size(self, network: nn.Module, choice: Choice, target: Path) -> float:
        """Measure a network of one size and write its file with its card; the quality."""

    def options(self, model: str) -> Mapping[str, Any]:
        """Of `infer`, with which such a network is run."""


def elastic_names() -> list[str]:
    """Of every task that an installed package registers."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def make_elastic(name: str, given: Given) -> ElasticTask:
    """The task of a name.

    Raises:
        InputError: no installed package registers it, or its data cannot be used.
    """
    for point in entry_points(group=GROUP, name=name):
        make: Callable[[Given], ElasticTask] = point.load()
        return make(given)
    known = ", ".join(elastic_names()) or "nothing"
    raise InputError(f"no sizes of {name!r} can be trained at once; there are: {known}")
