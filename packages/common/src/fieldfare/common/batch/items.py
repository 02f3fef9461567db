# SPDX-License-Identifier: Apache-2.0
"""What goes into a batch run, and what comes out of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Item:
    """One piece of work: the files it reads and the files it writes.

    Args:
        key: name that stays the same from run to run, unique in the run; usually the input's path
            relative to the input folder.
        inputs: files or folders read (all modalities of a case, all parts of a rotated capture);
            may be empty.
        outputs: files written, at least one. They are made absolute, as the inputs are.
        cost: size of the work in any unit (bytes, pixels). When every item has one, the time left
            is estimated from costs, else from the number of items.
    """

    key: str
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]
    cost: float = 0.0

    def __post_init__(self) -> None:
        for name in ("inputs", "outputs"):
            paths = tuple(Path(path).absolute() for path in getattr(self, name))
            object.__setattr__(self, name, paths)
        if not self.key or not self.outputs:
            raise ValueError(f"item {self.key!r} needs a key and at least one output")


#: process(item, temporaries) writes one file to each temporary path (in the order of item.outputs,
#: same file names) and nothing else; the numbers it returns go into the manifest.
Process = Callable[[Item, Sequence[Path]], Mapping[str, float]]

#: make_worker() is called once in each worker process: it loads the weights and returns process.
MakeWorker = Callable[[], Process]


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended.

    Args:
        done: items finished in this run.
        failed: items given up in this run.
        skipped: items an earlier run had finished.
        seconds: wall-clock time of the run.
        manifest: path of the manifest.
        errors: error text of each failed item, by key.
    """

    done: int
    failed: int
    skipped: int
    seconds: float
    manifest: Path
    errors: Mapping[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0: every item is done, now or earlier; 3: some failed; 1: none is done."""
        if self.done + self.skipped == 0:
            return 1
        return 3 if self.failed else 0
