# SPDX-License-Identifier: Apache-2.0
"""The CSV log of a training run and its learning-curve picture."""

import csv
from pathlib import Path

from ..files import atomic_path


class TrainingLog:
    """Rows of numbers in `log.csv`; on resume, rows after the resumed step are dropped."""

    def __init__(self, path: Path, *, resumed_step: int = 0) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        if resumed_step and path.exists():
            with open(path, newline="") as file:
                rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
            self.rows = [row for row in rows if row["step"] <= resumed_step]

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
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        known = ("step", "loss", "learning_rate", "seconds")
        metrics = sorted({name for row in self.rows for name in row if name not in known})
        figure, axes = pyplot.subplots(
            1 + len(metrics), 1, figsize=(7, 2.5 * (1 + len(metrics))), squeeze=False
        )
        for axis, name in zip(axes[:, 0], ["loss", *metrics], strict=True):
            points = [(row["step"], row[name]) for row in self.rows if name in row]
            axis.plot(*zip(*points, strict=True), marker="." if name != "loss" else "")
            axis.set_ylabel(name)
            axis.grid(alpha=0.3)
        if all(row["loss"] > 0 for row in self.rows if "loss" in row):
            axes[0, 0].set_yscale("log")
        axes[-1, 0].set_xlabel("step")
        figure.tight_layout()
        with atomic_path(target) as temporary:
            figure.savefig(temporary, dpi=100)
        pyplot.close(figure)
