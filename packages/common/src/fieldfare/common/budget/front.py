# SPDX-License-Identifier: Apache-2.0
"""Which variants are worth having: quality against what it costs."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ..files import atomic_path
from .variants import Variant, Variants


def dominated(
    variants: Sequence[Variant], cost: Callable[[Variant], float] = lambda item: item.seconds
) -> list[bool]:
    """Of each variant, whether another is at least as good and as cheap, and better in one."""
    return [
        any(
            other.quality >= one.quality
            and cost(other) <= cost(one)
            and (other.quality > one.quality or cost(other) < cost(one))
            for other in variants
        )
        for one in variants
    ]


def draw(found: Variants, target: Path) -> None:
    """Draw quality against seconds of a unit as PNG; dominated variants are grey.

    The front is a line; each point has its name.
    """
    from matplotlib.figure import Figure  # without pyplot, which would open a display
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    rows = sorted(found.variants, key=lambda item: item.seconds)
    grey = dominated(rows)
    front = [row for row, out in zip(rows, grey, strict=True) if not out]
    axes.plot([r.seconds for r in front], [r.quality for r in front], color="#1f6feb", zorder=1)
    for row, out in zip(rows, grey, strict=True):
        colour = "#9a9a9a" if out else "#1f6feb"
        axes.scatter(row.seconds, row.quality, color=colour, zorder=2)
        axes.annotate(
            row.name,
            (row.seconds, row.quality),
            xytext=(5, 4),
            textcoords="offset points",
            color=colour,
            fontsize=8,
        )
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.margins(x=0.2, y=0.1)
    axes.set_xlabel(f"seconds for {found.unit}\n{found.machine}")
    axes.set_ylabel(found.metric)
    axes.set_title(found.task)
    axes.grid(alpha=0.3)
    with atomic_path(target) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
