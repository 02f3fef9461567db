# SPDX-License-Identifier: Apache-2.0
"""Pictures of an evaluation: curves and distributions, a line for each method."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fieldfare.common.files import atomic_path

MARKERS = "osD^vPX*"


def draw_curves(
    path: Path, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], x: str, y: str
) -> None:
    """Lines through points (PNG).

    Args:
        path: the file.
        lines: name to (x values, y values).
        x, y: labels of the axes, with units.
    """
    figure, axes = _axes(x, y)
    for index, (name, (xs, ys)) in enumerate(lines.items()):
        line, colour = ("--", "black") if name == "bound" else ("-", None)
        marker = MARKERS[index % len(MARKERS)]
        axes.plot(xs, ys, line, marker=marker, markersize=4, label=name, color=colour)
    _save(path, figure, axes)


def draw_distributions(path: Path, samples: Mapping[str, np.ndarray], x: str) -> None:
    """Empirical cumulative distributions (PNG).

    Args:
        path: the file.
        samples: name to values of any number.
        x: label of the axis, with its unit.
    """
    figure, axes = _axes(x, "share of users below")
    for name, values in samples.items():
        ordered = np.sort(values)
        axes.plot(ordered, np.arange(1, len(ordered) + 1) / len(ordered), label=name)
    axes.set_ylim(0, 1)
    _save(path, figure, axes)


def _axes(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    return figure, axes


def _save(path: Path, figure: Figure, axes: Axes) -> None:
    axes.legend(frameon=False)
    # Without the version of matplotlib in it, the same data give the same file.
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})
