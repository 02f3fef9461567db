# SPDX-License-Identifier: Apache-2.0
"""What a package registers so that `fieldfare search TASK` can search for its networks.

The entry-point group `fieldfare.searches` holds, under the task's name, a `MakeTask`. Strategies
never see a task: they see genes and values.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from ..elastic.genes import Choice, Space
from ..errors import InputError

GROUP = "fieldfare.searches"


@dataclass(frozen=True)
class Given:
    """What the user says of the evaluations.

    Attributes:
        data: paths; what they are is the task's affair.
        steps: of the short run that every network gets; the task's own where None.
        seed: of every run.
        device: where to train, as `--device` names it.
        folder: of the search, where what is read once may be kept; None in a dry run.
    """

    data: tuple[Path, ...] = ()
    steps: int | None = None
    seed: int = 0
    device: str = "cpu"
    folder: Path | None = None


class Task(Protocol):
    """A space of networks, what each costs, and what a short run on the user's data gives.

    Attributes:
        space: genes in the order of cost: the first values make the cheapest network.
        recipe: genes that say how a network is trained, and nothing of its cost.
        presets: the choices that people made, by name.
        metric: what the quality of `evaluate` is, and on which data, in words.
        unit: what the cost is of, in words.
        identity: what the evaluations depend on besides the choice; fit for JSON.
        command: that uses the networks, with `--model`.
    """

    space: Space
    recipe: tuple[str, ...]
    presets: Mapping[str, Choice]
    metric: str
    unit: str
    identity: Mapping[str, Any]
    command: str

    def macs(self, choice: Choice) -> float:
        """Multiply-accumulates of one unit; counted, not measured."""
        ...

    def runner(self, choice: Choice) -> Callable[[], object]:
        """What runs one unit through an untrained network of this choice."""
        ...

    def evaluate(self, choice: Choice, target: Path, work: Path) -> float:
        """Train shortly, write the model file with its card, and measure on validation data.

        Args:
            target: of the weights, whose page goes beside it.
            work: folder of the run's checkpoint, so that it can be broken off and gone on with.

        Returns:
            The quality; higher is better.
        """
        ...


MakeTask = Callable[[Given], Task]


def task_names() -> list[str]:
    """Of every task that an installed package registers."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def make_task(name: str, given: Given) -> Task:
    """The task of a name, on the user's data.

    Raises:
        InputError: no installed package registers it, or its data cannot be used.
    """
    for point in entry_points(group=GROUP, name=name):
        make: MakeTask = point.load()
        return make(given)
    known = ", ".join(task_names()) or "nothing"
    raise InputError(f"nothing to search for {name!r}; installed packages can search: {known}")


def require_files(task: str, data: Sequence[Path], count: int, what: str) -> None:
    """Raise InputError unless so many paths were given and all exist."""
    if len(data) != count:
        raise InputError(f"{task}: needs {what}; got {len(data) or 'no'} paths")
    for path in data:
        if not path.exists():
            raise InputError(f"{path}: no such file")
