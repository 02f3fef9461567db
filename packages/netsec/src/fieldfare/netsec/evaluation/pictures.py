# SPDX-License-Identifier: Apache-2.0
"""Pictures of scores, drawn by matplotlib without a display."""

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fieldfare.common.errors import InputError
from fieldfare.common.files import atomic_path

from .scores import Reliability, Scores

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#8a929c"
"""After Okabe and Ito: they differ for colour-blind eyes."""
_PALETTE = (BLUE, ORANGE, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", GREY)
DPI = 150
ENDINGS = (".png", ".svg", ".pdf")


def draw_confusion(scores: Scores, title: str = "") -> Figure:
    """Truth in rows, prediction in columns: shares of a row as shade, numbers of flows as text.

    Only classes that occur in truth or prediction are drawn.
    """
    given = scores.confusion.sum(axis=0) + scores.support
    shown = np.flatnonzero(given)
    counts = scores.confusion[np.ix_(shown, shown)]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [scores.classes[i] for i in shown]
    rows = [f"{name} ({scores.support[i]})" for name, i in zip(names, shown, strict=True)]
    size = 2.2 + 0.34 * len(shown)
    figure, axes = _figure(size + 0.8, size)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    places = np.arange(len(shown))
    axes.set_xticks(places)
    axes.set_xticklabels(names, rotation=90, fontsize=8, parse_math=False)
    axes.set_yticks(places)
    axes.set_yticklabels(rows, fontsize=8, parse_math=False)
    for row, column in np.argwhere(counts):
        colour = "white" if shares[row, column] > 0.55 else "black"
        text = str(counts[row, column])
        axes.text(column, row, text, ha="center", va="center", fontsize=6.5, color=colour)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth (flows)")
    told = f"macro-F1 {scores.macro_f1:.3f}, accuracy {scores.accuracy:.3f}"
    axes.set_title(f"{title}\n{told}" if title else told, fontsize=10, parse_math=False)
    return figure


def draw_reliability(found: Reliability, title: str = "") -> Figure:
    """Accuracy over confidence, with the flows in each bin below."""
    figure = Figure(figsize=(4.2, 4.6), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    width = np.diff(found.edges)
    upper.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    filled = found.count > 0
    accuracy = np.nan_to_num(found.accuracy)
    upper.bar(found.edges[:-1], accuracy, width, align="edge", color=BLUE, edgecolor="white")
    upper.plot(
        found.confidence[filled], accuracy[filled], "o", markersize=3.5, color=ORANGE,
        label="mean confidence of the bin",
    )  # fmt: skip
    figure.legend(fontsize=8, loc="outside lower center", frameon=False)
    upper.set_ylim(0, 1.02)
    upper.set_ylabel("accuracy")
    told = f"expected calibration error {found.error:.3f}"
    upper.set_title(f"{title}\n{told}" if title else told, fontsize=10, parse_math=False)
    lower.bar(found.edges[:-1], found.count, width, align="edge", color=GREY, edgecolor="white")
    lower.set_xlim(0, 1)
    lower.set_xlabel("confidence")
    lower.set_ylabel("flows")
    return figure


def draw_first_packets(
    curves: Mapping[str, Sequence[Mapping[str, float]]], measure: str = "macro_f1"
) -> Figure:
    """Scores over the number of packets seen.

    Args:
        curves: by name of the classifier, of `early.first_packets_curve`.
        measure: `macro_f1` or `accuracy`.
    """
    figure, axes = _figure(4.8, 3.4)
    for (name, rows), colour in zip(curves.items(), itertools.cycle(_PALETTE), strict=False):
        seen = [row["packets"] for row in rows]
        axes.plot(seen, [row[measure] for row in rows], "o-", color=colour, label=name)
    axes.set_xlabel("packets seen")
    axes.set_ylabel(measure.replace("macro_f1", "macro-F1"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)
    if curves:
        axes.legend(fontsize=8, frameon=False, loc="lower right")
    return figure


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a picture, whole or not at all; the ending says the format.

    Raises:
        InputError: no such format.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise InputError(f"{path}: name it {', '.join('*' + ending for ending in ENDINGS)}")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:])


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()
