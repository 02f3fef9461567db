# SPDX-License-Identifier: Apache-2.0
"""Which variants are worth having: quality against what it costs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

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

    The front is a line; each point has its name where there is room for it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
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
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.2, y=0.1)
    low, high = axes.get_xlim()
    axes.xaxis.set_minor_formatter("{x:g}" if high < 1000 * low else "")  # else they overlap
    axes.set_xlabel(f"seconds for {found.unit}\n{found.machine}")
    axes.set_ylabel(found.metric)
    axes.set_title(found.task)
    axes.grid(alpha=0.3)
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    taken = [_around(axes.transData.transform((row.seconds, row.quality))) for row in rows]
    for row in [*front, *(row for row in rows if row not in front)]:
        colour = "#1f6feb" if row in front else "#9a9a9a"
        _name(axes, row, colour, taken, canvas.get_renderer())
    with atomic_path(target) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


PLACES = ((6, 4), (6, -11), (-6, 4), (-6, -11), (6, 14), (-6, 14), (6, -21), (-6, -21))
"""Where a name may stand, in points from its point; left of it where the first is negative."""


def _around(place: Any) -> Any:
    """The box of a point in pixels."""
    from matplotlib.transforms import Bbox

    return Bbox.from_bounds(place[0] - 6, place[1] - 6, 12, 12)


def _name(axes: Any, row: Variant, colour: str, taken: list[Any], renderer: Any) -> None:
    """Write a variant's name at the first of PLACES that is free, if one is."""
    for across, up in PLACES:
        text = axes.annotate(
            row.name,
            (row.seconds, row.quality),
            xytext=(across, up),
            textcoords="offset points",
            ha="left" if across > 0 else "right",
            color=colour,
            fontsize=8,
        )
        box = text.get_window_extent(renderer)
        if not any(box.overlaps(other) for other in taken):
            taken.append(box)
            return
        text.remove()
