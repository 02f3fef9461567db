# SPDX-License-Identifier: Apache-2.0
"""What happens inside a worker process, whatever the engine: one attempt at one item.

Nothing here raises: errors travel as data, so that for the driver an exception means one thing
only, that the worker died.
"""

import hashlib
import math
import os
import shutil
import socket
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fieldfare.common.errors import InputError, RunError
from fieldfare.common.files import replace_synced

from .items import Item, MakeWorker, Process


@dataclass(frozen=True, slots=True)
class Task:
    """One attempt at an item.

    Args:
        temporaries: one path for each output of the item.
        pause: seconds to wait before the attempt.
    """

    item: Item
    temporaries: tuple[Path, ...]
    pause: float = 0.0

    @property
    def folders(self) -> list[Path]:
        """The temporary folders, each once."""
        return list(dict.fromkeys(path.parent for path in self.temporaries))

    def clean(self) -> None:
        """Remove the temporary folders with all that is in them."""
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Started:
    """Result of loading the model: who the worker is, or why it cannot work."""

    worker: str = ""
    error: str = ""
    bad_input: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of one attempt.

    Args:
        seconds: time the attempt took, or None when its worker died.
        numbers: what process returned; NaN and infinity become None.
        outputs: size in bytes and SHA-256 (hex) of each output, in order.
        error: empty when the item is done.
        trace: traceback of an unexpected error.
        transient: whether another attempt may succeed.
    """

    seconds: float | None
    numbers: dict[str, float | None] = field(default_factory=dict)
    outputs: tuple[tuple[int, str], ...] = ()
    error: str = ""
    trace: str = ""
    transient: bool = False


class Worker:
    """Loads the model once, then works on tasks one after the other."""

    def __init__(self, make_worker: MakeWorker) -> None:
        self._make_worker = make_worker
        self._process: Process | None = None

    def start(self) -> Started:
        """Load the model."""
        try:
            self._process = self._make_worker()
        except (Exception, SystemExit) as error:
            return Started(error=describe_error(error), bad_input=isinstance(error, InputError))
        return Started(worker=f"{socket.gethostname()}:{os.getpid()}")

    def perform(self, task: Task) -> Outcome:
        """Process the item into temporary files, then move them to their places."""
        time.sleep(task.pause)
        begun = time.perf_counter()
        try:
            assert self._process is not None, "start() comes first"
            for folder in task.folders:
                folder.mkdir(parents=True)
            numbers = _plain_numbers(self._process(task.item, task.temporaries))
            outputs = tuple(_measure(path) for path in task.temporaries)
            for temporary, output in zip(task.temporaries, task.item.outputs, strict=True):
                replace_synced(temporary, output)
        except (Exception, SystemExit) as error:
            expected = isinstance(error, InputError | RunError | OSError)
            return Outcome(
                time.perf_counter() - begun,
                error=describe_error(error),
                trace="" if expected else traceback.format_exc(),
                transient=isinstance(error, OSError),
            )
        finally:
            task.clean()
        return Outcome(time.perf_counter() - begun, numbers, outputs)


def describe_error(error: BaseException) -> str:
    """The message; the kind of error before it where the message was not written for users."""
    if isinstance(error, InputError | RunError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _measure(path: Path) -> tuple[int, str]:
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return file.tell(), digest
    except FileNotFoundError:
        raise RunError(f"{path.name}: the output was not written") from None


def _plain_numbers(numbers: Mapping[str, float]) -> dict[str, float | None]:
    plain: dict[str, float | None] = {}
    for name, value in numbers.items():
        number = value if isinstance(value, int) else float(value)
        plain[name] = number if math.isfinite(number) else None
    return plain
