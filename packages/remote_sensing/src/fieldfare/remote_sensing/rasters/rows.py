# SPDX-License-Identifier: Apache-2.0
"""Finished rows of a long job, kept on disk beside its output so that it can be resumed."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fieldfare.common.errors import InputError
from fieldfare.common.files import atomic_path, write_text

SETTINGS, LOCK = "settings.json", "lock"

LONGEST = 200
"""Bytes of an output's name up to which the folder is named after it."""


class RowStore:
    """A hidden folder beside the output; one file for each run of rows, in order from the top.

    Rows that hold nothing are an empty file. Each file is renamed into place when whole, so after a
    crash the rows that are there are good. They are kept uncompressed: the folder grows to the size
    of the raw result and goes when the result is written.

    Args:
        target: the output the rows are for.
        settings: whatever the result depends on; rows of a run with other settings are dropped.
        resume: keep the rows of an earlier run with the same settings.

    Raises:
        InputError: another run, which is alive, writes the same output.
    """

    def __init__(self, target: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        self.folder = target.with_name(f".{_short(target.name)}.partial")
        self._lock = _locked(self.folder, target)
        wanted = json.dumps(settings, sort_keys=True, default=str)
        kept = self.folder / SETTINGS
        if not (resume and kept.exists() and kept.read_text() == wanted):
            self._empty()
        write_text(kept, wanted)
        self.done = 0
        for path in self._files():
            first, last = self._range(path)
            if first != self.done:
                path.unlink()
                continue
            self.done = last

    def add(self, rows: int, **arrays: np.ndarray) -> None:
        """Append the arrays of the next `rows` rows; none where they hold nothing."""
        first, last = self.done, self.done + rows
        name = f"{first:09d}-{last:09d}"
        if arrays:
            with atomic_path(self.folder / f"{name}.npz") as temporary:
                np.savez(temporary, **arrays)  # type: ignore[arg-type]
        else:
            (self.folder / f"{name}.none").touch()
        self.done = last

    def read(
        self, name: str, multiple: int, nothing: Callable[[int], np.ndarray]
    ) -> Iterator[np.ndarray]:
        """One of the arrays, top to bottom, regrouped on axis -2 into runs of `multiple` rows.

        Args:
            nothing: so many rows that hold nothing.
        """
        waiting: list[np.ndarray] = []
        held = 0
        for path in self._files():
            if path.suffix == ".none":
                first, last = self._range(path)
                waiting.append(nothing(last - first))
            else:
                with np.load(path, allow_pickle=False) as arrays:
                    waiting.append(arrays[name])
            held += waiting[-1].shape[-2]
            if held >= multiple:
                whole = np.concatenate(waiting, axis=-2)
                cut = held - held % multiple
                for top in range(0, cut, multiple):
                    yield whole[..., top : top + multiple, :]
                waiting, held = [whole[..., cut:, :]], held - cut
        if held:
            yield np.concatenate(waiting, axis=-2)

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.close()

    def close(self) -> None:
        """Let another run have the folder."""
        self._lock.close()

    def _empty(self) -> None:
        for path in self.folder.iterdir():
            if path.name != LOCK:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _files(self) -> list[Path]:
        found = (*self.folder.glob("[0-9]*.npz"), *self.folder.glob("[0-9]*.none"))
        return sorted(found)

    @staticmethod
    def _range(path: Path) -> tuple[int, int]:
        first, last = path.stem.split("-")
        return int(first), int(last)


def _short(name: str) -> str:
    """The name, or one of its own length in place of one too long to add to."""
    raw = os.fsencode(name)
    return name if len(raw) <= LONGEST else hashlib.sha256(raw).hexdigest()[:32]


def _locked(folder: Path, target: Path) -> BinaryIO:
    """The folder's lock, which ends with its process."""
    while True:
        folder.mkdir(exist_ok=True)
        try:
            file = (folder / LOCK).open("ab")
        except FileNotFoundError:  # the run that had it has just ended
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise InputError(
                f"{target}: another run is writing it; wait for it, or choose another output"
            ) from None
        with contextlib.suppress(FileNotFoundError):
            if os.stat(folder / LOCK).st_ino == os.fstat(file.fileno()).st_ino:
                return file
        file.close()


@contextlib.contextmanager
def kept_rows(
    sources: Sequence[Path],
    target: Path,
    settings: Mapping[str, Any],
    *,
    resume: bool,
    height: int,
) -> Iterator[RowStore]:
    """Rows of one run: kept where it breaks off, deleted when it ends or had none.

    Args:
        sources: the files of the input; rows made from another state of them are dropped.
        target, settings, resume: of `RowStore`.
        height: number of rows of the whole.

    Raises:
        KeyboardInterrupt: as in the body, saying how far it came.
    """
    stamps = []
    for source in sources:
        if source.exists():  # the name of what lies on the network stands for itself
            status = source.stat()
            stamps.append([str(source.absolute()), status.st_size, status.st_mtime_ns])
        else:
            stamps.append([str(source)])
    rows = RowStore(target, {**settings, "sources": stamps}, resume=resume)
    try:
        yield rows
    except BaseException as error:
        if rows.done == 0:
            rows.remove()
        rows.close()
        if rows.done and isinstance(error, KeyboardInterrupt):
            share = 100 * rows.done // height
            raise KeyboardInterrupt(
                f"interrupted at {share} %; the same command goes on from there"
            ) from None
        raise
    rows.remove()
