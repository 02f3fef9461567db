# SPDX-License-Identifier: Apache-2.0
"""Workers for the tests, healthy and faulty; importable in spawned processes. No torch here."""

import ctypes
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fieldfare.common.batch import Item, run
from fieldfare.common.errors import InputError


def make_items(root: Path, count: int) -> list[Item]:
    """Items with a few hundred bytes each; every third one has a second output."""
    (root / "in").mkdir(parents=True, exist_ok=True)
    items = []
    for index in range(count):
        source = root / "in" / f"{index:02d}.bin"
        if not source.exists():
            source.write_bytes(bytes((index * k) % 251 for k in range(100 + 37 * index)))
        outputs = [root / "out" / "deep" / f"{index:02d}.result.bin"]
        if index % 3 == 0:
            outputs.append(root / "out" / f"{index:02d}.txt")
        items.append(Item(f"{index:02d}", (source,), tuple(outputs), cost=source.stat().st_size))
    return items


def transform(item: Item, paths: Sequence[Path]) -> Mapping[str, float]:
    """Deterministic work: a keyed stream of hashes, and a text where the item has two outputs."""
    data = item.inputs[0].read_bytes()
    blocks = [hashlib.sha256(data + bytes([k])).digest() for k in range(64)]
    paths[0].write_bytes(b"".join(blocks))
    for path in paths[1:]:
        path.write_text(f"{item.key} {len(data)} bytes\n", encoding="utf-8")
    return {"bytes": len(data), "mean": sum(data) / len(data), "niceness": os.nice(0)}


def start_slowly() -> Callable[[Item, Sequence[Path]], Mapping[str, float]]:
    """make_worker that takes longer than the driver waits between two reports."""
    time.sleep(1.5)
    return transform


def plain_loop(items: Sequence[Item], folder: Path) -> dict[str, bytes]:
    """The outputs of `transform`, by file name, without any engine."""
    folder.mkdir()
    for item in items:
        transform(item, [folder / output.name for output in item.outputs])
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def written(items: Sequence[Item]) -> dict[str, bytes]:
    """The outputs that exist, by file name."""
    paths = (output for item in items for output in item.outputs)
    return {path.name: path.read_bytes() for path in paths if path.exists()}


@dataclass(frozen=True)
class Faulty:
    """make_worker: `transform`, with a fault at some keys; each start is logged in a file.

    Faults: die, die-once, raise, refuse, exit, oserror-once, oserror, nothing, hang (holding the
    interpreter's lock).
    """

    log: Path
    faults: Mapping[str, str] = field(default_factory=dict)
    at_load: str = ""

    def having(self, **faults: str) -> "Faulty":
        """The same with faults; keys are written k00, k01, ..."""
        return replace(self, faults={key[1:]: fault for key, fault in faults.items()})

    def __call__(self) -> Callable[[Item, Sequence[Path]], Mapping[str, float]]:
        (self.log / f"load.{time.monotonic_ns()}").write_text(str(os.getpid()))
        if self.at_load == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.at_load == "refuse":
            raise InputError("weights.safetensors: no such file")
        if self.at_load == "raise":
            raise KeyError("weights")
        return self._process

    def starts(self, key: str) -> int:
        """How often any worker started the item."""
        return len(list(self.log.glob(f"{key}.*")))

    def pids(self) -> set[int]:
        """Processes that loaded the model."""
        return {int(path.read_text() or 0) for path in self.log.glob("load.*")}

    def _process(self, item: Item, paths: Sequence[Path]) -> Mapping[str, float]:
        (self.log / f"{item.key}.{time.monotonic_ns()}").write_text(str(os.getpid()))
        first = self.starts(item.key) == 1
        fault = self.faults.get(item.key, "")
        paths[0].write_bytes(b"half-written")
        if fault == "die" or (fault == "die-once" and first):
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "oserror" or (fault == "oserror-once" and first):
            raise OSError("the disk hiccups")
        if fault == "raise":
            raise ZeroDivisionError("a bug")
        if fault == "refuse":
            raise InputError(f"{item.key}: not a raster")
        if fault == "exit":
            sys.exit("leaving")
        if fault == "nothing":
            paths[0].unlink()
            return {}
        if fault == "hang":
            ctypes.PyDLL(None).sleep(120)
        return transform(item, paths)


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition came true before the time was over."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def read_lines(manifest: Path) -> list[dict]:
    """All lines of a manifest; every one must be whole."""
    text = manifest.read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def drive(root: str, count: str, workers: str, faults: str) -> None:
    """A driver in a process of its own: run items with faults (JSON), print the exit code."""
    folder = Path(root)
    make_worker = Faulty(folder / "log", json.loads(faults))
    items = make_items(folder, int(count))
    settings = {"model": "tiny"}
    summary = run(items, make_worker, folder / "out", workers=int(workers), settings=settings)
    print(summary.exit_code)


class ReportEnvironment:
    """make_worker: writes the variables that divide cores and GPUs among workers."""

    def __call__(self) -> Callable[[Item, Sequence[Path]], Mapping[str, float]]:
        return self.process

    def process(self, item: Item, paths: Sequence[Path]) -> Mapping[str, float]:
        """Write OMP_NUM_THREADS and CUDA_VISIBLE_DEVICES."""
        names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
        paths[0].write_text(" ".join(os.environ[name] for name in names))
        return {"torch": "torch" in sys.modules, "nan": float("nan")}
