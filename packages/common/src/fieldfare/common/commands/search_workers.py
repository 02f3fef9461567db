# SPDX-License-Identifier: Apache-2.0
"""Several networks of a search at a time, in worker processes here or on a Ray cluster."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import batch
from ..elastic.genes import Choice
from ..errors import RunError
from ..search.evaluations import Evaluations, Train, network_name
from ..search.tasks import Task


@dataclass(frozen=True)
class MakeTrainer:
    """A worker of `batch.run` that trains one network an item; its key is the choice.

    Attributes:
        task: makes the task, once in each worker; can be pickled.
        folder: of the search; networks and checkpoints go where one process puts them.
    """

    task: Callable[[], Task]
    folder: Path

    def __call__(self) -> batch.Process:
        """Read the data once."""
        task = self.task()
        evaluations = Evaluations(task, task.macs, self.folder)

        def process(item: batch.Item, temporaries: Sequence[Path]) -> Mapping[str, float]:
            row = evaluations.renew(task.space.canonical(json.loads(item.key)))
            temporaries[0].write_text(json.dumps(row), encoding="utf-8")
            return {"quality": 1 - row[0]}

        return process


def train_in_workers(make: MakeTrainer, folder: Path, *, engine: str, workers: int) -> Train:
    """How `Evaluations` trains several at a time.

    Args:
        folder: receives the manifest and a row for each network, so that what workers finished is
            known where this process ended before.
    """

    def train(choices: Sequence[Choice]) -> Iterator[list[float]]:
        items = [
            batch.Item(
                key=json.dumps(dict(choice), sort_keys=True),
                inputs=(),
                outputs=(folder / f"{network_name(choice)}.json",),
            )
            for choice in choices
        ]
        summary = batch.run(
            items,
            make,
            folder,
            engine=engine,
            workers=min(workers, len(choices)),
            settings={},  # evaluations.jsonl tells them
            progress=lambda _: None,
        )
        for name, text in summary.errors.items():
            raise RunError(f"{name}: {text}; run the same command again to go on")
        for item in items:
            yield json.loads(item.outputs[0].read_text(encoding="utf-8"))

    return train
