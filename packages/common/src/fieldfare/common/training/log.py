# SPDX-License-Identifier: Apache-2.0
"""The CSV log of a training run and its learning-curve picture."""

import csv
from pathlib import Path

from ..errors import InputError
from ..files import atomic_path


class TrainingLog:
    """Rows of numbers in `log.csv`; on resume, rows after the resumed step are dropped.

    Raises:
        InputError: on resume, the file is not such a log.
    """

    def __init__(self, path: Path, *, resumed_step: int = 0) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        if resumed_step and path.exists():
            try:
                self.rows = [row for row in _read(path) if row["step"] <= resumed_step]
            except (KeyError, TypeError, ValueError):
                raise InputError(f"{path}: not a training log; move it away to go on") from None

    def add(self, **values: float) -> None:
        """Append a row and rewrite the file (columns may grow)."""
        self.rows.append(values)
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        with atomic_path(self.path) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)

    def draw(self, target: Path) -> None:
        """Write the learning curve as PNG: loss on a log axis, each validation metric below it."""
        from matplotlib.figure import Figure  # without pyplot, which would open a display

        known = ("step", "loss", "learning_rate", "seconds")
        metrics = sorted({name for row in self.rows for name in row if name not in known})
        height = 2.5 * (1 + len(metrics))
        figure = Figure(figsize=(7, height), layout="tight")
        axes = figure.subplots(1 + len(metrics), 1, squeeze=False)[:, 0]
        for axis, name in zip(axes, ["loss", *metrics], strict=True):
            points = [(row["step"], row[name]) for row in self.rows if name in row]
            axis.plot(*zip(*points, strict=True), marker="." if name != "loss" else "")
            axis.set_ylabel(name)
            axis.grid(alpha=0.3)
        if all(row["loss"] > 0 for row in self.rows if "loss" in row):
            axes[0].set_yscale("log")
        axes[-1].set_xlabel("step")
        with atomic_path(target) as temporary:
            figure.savefig(temporary, dpi=100)


def _read(path: Path) -> list[dict[str, float]]:
    with open(path, newline="") as file:
        rows = [
            {name: float(text) for name, text in row.items() if text}
            for row in csv.DictReader(file)
        ]
    return [row | {"step": int(row["step"])} for row in rows]
