# SPDX-License-Identifier: Apache-2.0
"""The record of a batch run: OUT/manifest.jsonl, written by the driver only.

Each run adds a header line (its settings); each item then adds a short line when it starts and a
full one when it is done or failed. An output that exists is replaced only if its item once started
here, so a stranger's file is never lost and what a killed run left never stands in the way. Lines
are only ever added, each by one system call: a killed driver leaves at most one torn last line,
which the next run ignores and cuts off.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from fieldfare.common.errors import InputError, RunError

from .items import Item
from .worker import Outcome

NAME = "manifest.jsonl"

#: Size in bytes and time of last change in ns of each input.
Stamps = tuple[tuple[int, int], ...]


class Manifest:
    """Reads what earlier runs finished, and records this one.

    Args:
        out: folder of the manifest; made when missing.
        header: run (its id), settings (what the outputs depend on, as JSON), and anything else
            worth keeping.
        resume: whether items done by earlier runs count as done.
        overwrite: whether earlier outputs may be replaced.

    Raises:
        InputError: the folder is not writable or in use by another run, its manifest is damaged,
            or it holds a run with other settings (or any run, without resume) and overwrite is
            False.
    """

    def __init__(
        self, out: Path, header: Mapping[str, Any], *, resume: bool, overwrite: bool
    ) -> None:
        self.path = out / NAME
        self.run = str(header["run"])
        settings = header["settings"]
        self._settings: Mapping[str, Any] | None = None  # of the last run recorded
        #: Every item that once started here; input stamps and output sizes where it is done.
        self._known: dict[str, tuple[Stamps, tuple[int, ...]] | None] = {}
        hashed = _hash(settings)
        self._file = _open_locked(self.path)
        try:
            before = self._read()
            if before is not None and not overwrite:
                self._check_same(before, settings, resume)
            if not resume or _hash(before) != hashed:
                self._forget_done()
            self._append(dict(header) | {"settings_sha256": hashed})
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            os.fsync(self._file.fileno())
        self._file.close()  # also gives the lock back

    def is_done(self, item: Item, stamps: Stamps) -> bool:
        """Whether an earlier run did the item from the same inputs and its outputs are there."""
        recorded = self._known.get(item.key)
        return recorded is not None and recorded == (stamps, _sizes(item.outputs))

    def has_started(self, item: Item) -> bool:
        """Whether any run recorded here ever started the item: then its outputs are ours."""
        return item.key in self._known

    def add_started(self, item: Item) -> None:
        """Record that the outputs of the item may be replaced from now on."""
        self._append({"key": item.key, "status": "started", "run": self.run})

    def add(
        self, item: Item, stamps: Stamps, outcome: Outcome, *, attempts: int, worker: str
    ) -> None:
        """Record that an item is done or failed."""
        entry: dict[str, Any] = {
            "key": item.key,
            "status": "failed" if outcome.error else "done",
            "attempts": attempts,
            "seconds": None if outcome.seconds is None else round(outcome.seconds, 3),
            "worker": worker,
            "run": self.run,
            "inputs": [{"size": size, "mtime_ns": changed} for size, changed in stamps],
        }
        if outcome.error:
            entry["error"] = outcome.error
            if outcome.trace:
                entry["trace"] = outcome.trace
        else:
            entry["outputs"] = [
                {"path": os.path.relpath(path, self.path.parent), "size": size, "sha256": digest}
                for path, (size, digest) in zip(item.outputs, outcome.outputs, strict=True)
            ]
            entry["numbers"] = outcome.numbers
        self._append(entry)

    def _append(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps(entry, allow_nan=False).encode() + b"\n"
        try:
            written = self._file.write(line)
        except OSError as error:
            raise RunError(f"{self.path}: {error.strerror}") from error
        if written != len(line):
            raise RunError(f"{self.path}: a line was cut short; is the disk full?")

    def _forget_done(self) -> None:
        self._known = dict.fromkeys(self._known)

    def _read(self) -> Mapping[str, Any] | None:
        """Take in the earlier runs; the settings of the last one, None when there is none."""
        self._file.seek(0)
        good = 0
        with open(self._file.fileno(), "rb", closefd=False) as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    if not line.endswith(b"\n"):
                        raise ValueError("torn line")
                    self._replay(json.loads(line))
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    if next(lines, None) is None:
                        break  # the last line, torn: its item is done again
                    raise InputError(
                        f"{self.path}: line {number} is damaged; move the file away to start anew"
                    ) from error
                good += len(line)
        self._file.truncate(good)
        return self._settings

    def _replay(self, entry: Mapping[str, Any]) -> None:
        if "settings" in entry:
            if _hash(self._settings) != _hash(entry["settings"]):
                self._forget_done()
            self._settings = entry["settings"]
        elif entry["status"] == "done":
            stamps = tuple((stamp["size"], stamp["mtime_ns"]) for stamp in entry["inputs"])
            sizes = tuple(output["size"] for output in entry["outputs"])
            self._known[entry["key"]] = (stamps, sizes)
        elif entry.get("attempts") != 0:  # 0: refused before it started
            self._known[entry["key"]] = None

    def _check_same(self, old: Mapping[str, Any], new: Mapping[str, Any], resume: bool) -> None:
        if not resume:
            raise InputError(
                f"{self.path.parent}: holds an earlier run; resume it, choose another folder, "
                "or add --overwrite"
            )
        names = sorted(set(old) | set(new))
        changed = [name for name in names if _hash(old.get(name)) != _hash(new.get(name))]
        if changed:
            raise InputError(
                f"{self.path.parent}: holds a run with other settings ({', '.join(changed)}); "
                "choose another folder or add --overwrite"
            )


def input_stamps(item: Item) -> Stamps:
    """Size and time of last change of each input.

    Raises:
        OSError: an input is missing or cannot be reached.
    """
    stats = [path.stat() for path in item.inputs]
    return tuple((stat.st_size, stat.st_mtime_ns) for stat in stats)


def _open_locked(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+b", buffering=0)  # noqa: SIM115, the manifest closes it
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise InputError(f"{path.parent}: another run is writing here; wait for its end") from None
    except OSError:
        pass  # a file system without locks
    return file


def _hash(settings: object) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _sizes(paths: Sequence[Path]) -> tuple[int, ...] | None:
    try:
        return tuple(path.stat().st_size for path in paths)
    except OSError:
        return None
