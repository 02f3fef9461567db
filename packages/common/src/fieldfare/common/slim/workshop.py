# SPDX-License-Identifier: Apache-2.0
"""What a domain tells of its models, so that `fieldfare slim` and `cascade` can work on them.

A package registers a workshop for each task of its cards under the entry points `GROUP`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from ..errors import InputError
from ..weights import ModelCard, available, read_card

GROUP = "fieldfare.workshops"
"""Entry points: task -> `Workshop`, called without arguments."""


@dataclass(frozen=True)
class Draft:
    """A network on its way to being cheaper, in evaluation mode.

    Attributes:
        half: its weights are stored in half precision.
    """

    network: nn.Module
    half: bool = False


class Step(Protocol):
    """A transform; `name` for people."""

    name: str

    def candidates(self, draft: Draft) -> Iterator[tuple[str, Draft]]:
        """Cheaper and cheaper drafts, with what was done in words; may be none."""


class Data(Protocol):
    """Labelled data of a user, read and checked."""

    def score(self, network: nn.Module) -> float:
        """Quality on what was not trained on; higher is better."""

    def batches(self) -> Sequence[Tensor]:
        """Inputs of the network, without labels, to measure activations on."""


class Workshop(Protocol):
    """Of one task.

    Attributes:
        unit: what cost and time are of, in words.
        metric: what `Data.score` gives, in words.
    """

    unit: str
    metric: str

    def load(self, model: str) -> tuple[nn.Module, ModelCard]:
        """A network in evaluation mode; raises InputError."""

    def read(self, network: nn.Module, data: Sequence[Path], *, quiet: bool) -> Data:
        """What `--data` named; raises InputError."""

    def unit_of(self, network: nn.Module) -> tuple[nn.Module, Callable[[], object]]:
        """The network as `infer` runs it, and what runs one unit with it."""

    def macs(self, network: nn.Module) -> int:
        """Multiply-accumulates of a unit."""

    def steps(self, network: nn.Module, data: Data) -> list[Step]:
        """The transforms that make sense, in the order in which they are tried."""

    def save(self, draft: Draft, card: ModelCard, data: Data | None, path: Path) -> None:
        """Write a model file that the task's `infer --model` takes.

        Args:
            card: but for `config`, which tells how the network is built.
            data: what the file keeps beside the network is learnt from; None for the network alone.
        """

    def join(self, models: tuple[str, str], data: Sequence[Path], *, quiet: bool) -> "Joined":
        """Fit a cascade of two models.

        Raises:
            InputError: the task has no cascades, or the two do not go together.
        """


class Joined(Protocol):
    """Two models as one, its window fitted.

    Attributes:
        metric: what `quality` in `measured` is, in words.
        unit: what the workshop's costs are of.
    """

    metric: str
    unit: str

    def measured(self) -> dict[str, dict[str, float]]:
        """Rows by name, `cascade` the last; `quality` and `macs` of each, `passed_on` of that."""

    def save(self, card: ModelCard, path: Path) -> None:
        """Write a model file that the task's `infer --model` takes.

        Args:
            card: but for `config`.
        """


def workshop_of(model: str) -> tuple[str, Workshop]:
    """Task and workshop of a packaged model's name or a model file.

    Raises:
        InputError: no such model, or its package cannot slim it.
    """
    known = {point.name: point for point in entry_points(group=GROUP)}
    task = _task_of(model, sorted(known))
    if task not in known:
        raise InputError(f"{model}: is a {task} model; there are tools for: {', '.join(known)}")
    found: Workshop = known[task].load()()
    return task, found


def _task_of(model: str, tasks: Sequence[str]) -> str:
    path = Path(model)
    if path.suffix or len(path.parts) > 1:
        return read_card(path).task
    for task in tasks:
        if model in available(task):
            return task
    names = [name for task in tasks for name in available(task)]
    raise InputError(f"no model is named {model!r}; there are: {', '.join(names) or 'none'}")
