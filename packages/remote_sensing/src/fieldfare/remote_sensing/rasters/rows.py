# SPDX-License-Identifier: Apache-2.0
"""Finished rows of a long job, kept on disk beside its output so that it can be resumed."""

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fieldfare.common.files import atomic_path, write_text

SETTINGS = "settings.json"


class RowStore:
    """A hidden folder beside the output; one file for each run of rows, in order from the top.

    Each file is renamed into place when whole, so after a crash the rows that are there are good.
    They are kept uncompressed: the folder grows to the size of the raw result and goes when the
    result is written.

    Args:
        target: the output the rows are for.
        settings: whatever the result depends on; rows of a run with other settings are dropped.
        resume: keep the rows of an earlier run with the same settings.
    """

    def __init__(self, target: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        self.folder = target.with_name(f".{target.name}.partial")
        wanted = json.dumps(settings, sort_keys=True, default=str)
        kept = self.folder / SETTINGS
        if not (resume and kept.exists() and kept.read_text() == wanted):
            self.remove()
        self.folder.mkdir(exist_ok=True)
        write_text(kept, wanted)
        self.done = 0
        for path in self._files():
            first, last = self._range(path)
            if first != self.done:
                path.unlink()
                continue
            self.done = last

    def add(self, rows: int, **arrays: np.ndarray) -> None:
        """Append the arrays of the next `rows` rows."""
        first, last = self.done, self.done + rows
        with atomic_path(self.folder / f"{first:09d}-{last:09d}.npz") as temporary:
            np.savez(temporary, **arrays)  # type: ignore[arg-type]
        self.done = last

    def read(self, name: str, multiple: int) -> Iterator[np.ndarray]:
        """One of the arrays, top to bottom, regrouped on axis -2 into runs of `multiple` rows."""
        waiting: list[np.ndarray] = []
        held = 0
        for path in self._files():
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

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.npz"))

    @staticmethod
    def _range(path: Path) -> tuple[int, int]:
        first, last = path.stem.split("-")
        return int(first), int(last)


@contextlib.contextmanager
def kept_rows(
    source: Path, target: Path, settings: Mapping[str, Any], *, resume: bool, height: int
) -> Iterator[RowStore]:
    """Rows of one run: kept where it breaks off, deleted when it ends or had none.

    Args:
        source: the input; rows made from another state of it are dropped.
        target, settings, resume: of `RowStore`.
        height: number of rows of the whole.

    Raises:
        KeyboardInterrupt: as in the body, saying how far it came.
    """
    status = source.stat()
    stamp = {
        "source": str(source.absolute()),
        "bytes": status.st_size,
        "modified": status.st_mtime_ns,
    }
    rows = RowStore(target, {**settings, **stamp}, resume=resume)
    try:
        yield rows
    except BaseException as error:
        if rows.done == 0:
            rows.remove()
        elif isinstance(error, KeyboardInterrupt):
            share = 100 * rows.done // height
            raise KeyboardInterrupt(
                f"interrupted at {share} %; the same command goes on from there"
            ) from None
        raise
    rows.remove()
