# SPDX-License-Identifier: Apache-2.0
"""Evaluations kept on disk, so that an interrupted search goes on where it was."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..elastic.genes import Choice
from ..errors import InputError

Evaluate = Callable[[Sequence[Choice]], Iterable[Sequence[float] | NDArray[np.float64]]]
"""Choices to their rows, in order: a table, or one row after the other as each is known."""


class Cached:
    """An evaluator that remembers: one line of JSON a network, written as soon as it is known.

    An evaluator that is a generator loses nothing of a batch that is broken off.

    Args:
        evaluate: asked only for what the file does not hold.
        path: of the file, made at the first evaluation; its folder must exist.
        settings: what the values depend on besides the choice; a file of others is refused.

    Raises:
        InputError: the file was written with other settings.
    """

    def __init__(self, evaluate: Evaluate, path: Path, settings: str = "") -> None:
        self._evaluate, self._path, self._settings = evaluate, path, settings
        self._known: dict[str, list[float]] = {}
        if not path.exists():
            return
        lines = path.read_text(encoding="utf-8").splitlines()
        if not lines or (len(lines) == 1 and _is_torn_header(lines[0])):
            path.unlink()  # a killed run ended within its first line
            return
        rows = [row for line in lines if (row := _parsed(line)) is not None]
        if not rows or rows[0].get("settings") != settings:
            raise InputError(f"{path}: is of a search with other settings; choose another folder")
        self._known = {row["choice"]: row["values"] for row in rows[1:]}
        if lines and _parsed(lines[-1]) is None:  # a killed run ended within a line
            kept = "".join(json.dumps(row) + "\n" for row in rows)
            path.write_text(kept, encoding="utf-8")

    def __contains__(self, choice: Choice) -> bool:
        return _name(choice) in self._known

    def rows(self) -> NDArray[np.float64]:
        """All that is known, (count, values), in the order of evaluation."""
        return np.array(list(self._known.values()))

    def __len__(self) -> int:
        return len(self._known)

    def __call__(self, choices: Sequence[Choice]) -> NDArray[np.float64]:
        """(count, objectives)."""
        missing = [choice for choice in choices if _name(choice) not in self._known]
        if missing:
            with self._path.open("a", encoding="utf-8") as file:
                if not file.tell():
                    file.write(json.dumps({"settings": self._settings}) + "\n")
                    file.flush()
                for choice, row in zip(missing, self._evaluate(missing), strict=True):
                    self._known[_name(choice)] = [float(value) for value in row]
                    told = {"choice": _name(choice), "values": self._known[_name(choice)]}
                    file.write(json.dumps(told) + "\n")
                    file.flush()
        return np.array([self._known[_name(choice)] for choice in choices])


def _name(choice: Choice) -> str:
    return json.dumps(dict(choice), sort_keys=True)


def _is_torn_header(line: str) -> bool:
    return _parsed(line) is None and line.startswith('{"settings"'[: len(line)])


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
