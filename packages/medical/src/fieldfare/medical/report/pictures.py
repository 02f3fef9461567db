# SPDX-License-Identifier: Apache-2.0
"""Slices of a case with the outlines of its tumour, drawn by matplotlib.

All pictures are in the radiological convention: the patient's right is on the left.
"""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from ..data.naming import MODALITIES
from ..data.regions import REGIONS
from .findings import binary_entropy
from .scene import Scene

COLOURS = {"WT": "#56b4e9", "TC": "#f0e442", "ET": "#e8501e"}
"""Of the regions, after Okabe and Ito: they differ for colour-blind eyes and on grey."""

NAMES = {"WT": "whole tumour", "TC": "tumour core", "ET": "enhancing tumour"}

LABEL_COLOURS = {"ED": "#56b4e9", "NCR": "#f0e442", "ET": "#e8501e", "RC": "#00a078"}

TITLES = {"t1": "T1", "t1ce": "T1 + contrast", "t2": "T2", "flair": "FLAIR"}

PLANES = ("axial", "coronal", "sagittal")
_AXES = {"axial": 2, "coronal": 1, "sagittal": 0}
# Left, right and top of each plane.
_SIDES = {"axial": ("R", "L", "A"), "coronal": ("R", "L", "S"), "sagittal": ("A", "P", "S")}

PANEL = 2.2
"""Width of a panel, inches."""
DPI = 150
GREY = "#b8bcc2"

Array = NDArray[Any]


def draw_planes(scene: Scene, *, images: bool = True, outlines: bool = True) -> Figure:
    """Three planes through the most of the tumour (rows) in four contrasts (columns).

    Args:
        images, outlines: what to draw; without images the figure is transparent, to be laid over
            another.
    """
    columns: list[_Column] = [
        (TITLES[name], lambda axes, cut, i=i: _grey(axes, cut(scene.images[i]), cut))  # type: ignore[misc]
        for i, name in enumerate(MODALITIES)
    ]
    return _plane_sheet(scene, columns, images=images, outlines=outlines)


def draw_series(scene: Scene, *, images: bool = True, outlines: bool = True) -> Figure:
    """Six axial slices through the tumour (columns), FLAIR and T1 with contrast agent (rows).

    Where one of the two is missing, another modality stands in for it.
    """
    present = [name for i, name in enumerate(MODALITIES) if scene.images[i].any()]
    wished = [name for name in ("flair", "t1ce", "t2", "t1") if name in present][:2] or ["flair"]
    levels = np.flatnonzero(scene.regions[0].any(axis=(0, 1)))
    if not levels.size:
        levels = np.flatnonzero(scene.images.any(axis=(0, 1, 2)))
    if not levels.size:
        levels = np.arange(scene.labels.shape[2])
    # From the middles of six equal parts: the ends of a tumour show next to nothing.
    shares = (np.arange(6) + 0.5) / 6
    chosen = levels[np.round(shares[::-1] * (len(levels) - 1)).astype(int)]
    cuts = [[_Cut(scene, "axial", int(level)) for level in chosen]] * len(wished)
    figure, grid = _sheet(cuts, PANEL * 4 / 6)
    for row, name in enumerate(wished):
        for column, cut in enumerate(cuts[row]):
            axes = grid[row][column]
            if images:
                _grey(axes, cut(scene.images[MODALITIES.index(name)]), cut)
                _place(axes, cut)
                if not column:
                    _row_title(axes, TITLES[name])
                    _sides(axes, cut)
                    if not row:
                        _scale_bar(axes, cut)
            if outlines:
                _outline(axes, scene, cut)
            _frame(axes, cut)
    return _finish(figure, images)


def draw_entropy(scene: Scene) -> Figure:
    """Binary entropy of each region (columns) on the grey image, in the same planes as above.

    Raises:
        ValueError: the scene has no probabilities.
    """
    if scene.probabilities is None:
        raise ValueError("a map of entropy needs probabilities")
    present = [i for i in (3, 1, 2, 0) if scene.images[i].any()] or [3]
    maps: list[AxesImage] = []

    def draw(index: int) -> Callable[[Axes, "_Cut"], None]:
        def panel(axes: Axes, cut: "_Cut") -> None:
            assert scene.probabilities is not None
            _grey(axes, cut(scene.images[present[0]]) * 0.75, cut)
            entropy = binary_entropy(cut(scene.probabilities[index]))
            shown = np.ma.masked_less(entropy, 0.02)
            maps.append(
                axes.imshow(
                    shown,
                    extent=cut.extent,
                    cmap="inferno",
                    vmin=0,
                    vmax=1,
                    interpolation="nearest",
                )
            )

        return panel

    columns: list[_Column] = [(NAMES[name], draw(i)) for i, name in enumerate(REGIONS)]
    figure = _plane_sheet(scene, columns, images=True, outlines=False, bar=True)
    scale = figure.add_axes((0.915, 0.3, 0.014, 0.4))
    figure.colorbar(maps[0], cax=scale)
    scale.tick_params(colors=GREY, labelsize=8)
    scale.set_ylabel("entropy, bits", color=GREY, fontsize=8)
    return figure


def draw_overview(scene: Scene) -> NDArray[np.uint8]:
    """The planes and the series below a legend, (height, width, 4) uint8, RGBA."""
    strip = Figure(figsize=(9.35, 0.36), facecolor="black")
    FigureCanvasAgg(strip)
    for place, region in enumerate(REGIONS):
        strip.text(
            0.035 + 0.16 * place,
            0.4,
            NAMES[region],
            color=COLOURS[region],
            fontsize=10,
            va="center",
        )
    notice = "research only, not a medical device"
    strip.text(0.99, 0.4, notice, color=GREY, fontsize=9, va="center", ha="right")
    rows = [_pixels(figure) for figure in (strip, draw_planes(scene), draw_series(scene))]
    width = max(row.shape[1] for row in rows)
    black = np.array([0, 0, 0, 255], np.uint8)
    whole = np.tile(black, (sum(len(row) for row in rows), width, 1))
    y = 0
    for row in rows:
        whole[y : y + len(row), : row.shape[1]] = row
        y += len(row)
    return whole


def _pixels(figure: Figure) -> NDArray[np.uint8]:
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def to_bytes(figure: Figure, kind: str) -> bytes:
    """A figure as png or jpg."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"metadata": {"Software": None}} if kind == "png" else {}
    if kind == "jpg":
        options["pil_kwargs"] = {"quality": 88}
    figure.savefig(buffer, format=kind, dpi=DPI, facecolor=figure.get_facecolor(), **options)
    return buffer.getvalue()


class _Cut:
    """A slice of the scene's arrays as the picture has it, rows down and columns to the right."""

    def __init__(self, scene: Scene, plane: str, index: int) -> None:
        self.plane, self.index, self.axis = plane, index, _AXES[plane]
        sizes = [n * s for n, s in zip(scene.labels.shape, scene.spacing, strict=True)]
        self.width, self.height = (size for axis, size in enumerate(sizes) if axis != self.axis)
        # Left, right, bottom, top: mm from the upper left corner.
        self.extent = (0.0, self.width, self.height, 0.0)
        at = list(scene.centre)
        at[self.axis] = index
        self.mm = float(scene.world(at)[self.axis])

    def __call__(self, volume: Array) -> Array:
        cut: list[Any] = [slice(None)] * 3
        cut[self.axis] = self.index
        image: Array = volume[tuple(cut)].T
        return image if self.plane == "axial" else image[::-1]

    @property
    def place(self) -> str:
        """Where it lies in the world (RAS+): z 87 mm."""
        return f"{'xyz'[self.axis]} {self.mm:.0f} mm".replace("-", "\N{MINUS SIGN}")


_Column = tuple[str, Callable[[Axes, _Cut], None]]


def _plane_sheet(
    scene: Scene, columns: Sequence[_Column], *, images: bool, outlines: bool, bar: bool = False
) -> Figure:
    cuts = [[_Cut(scene, plane, scene.centre[_AXES[plane]])] * len(columns) for plane in PLANES]
    figure, grid = _sheet(cuts, PANEL, bar=bar)
    for row, plane in enumerate(PLANES):
        for column, (title, draw) in enumerate(columns):
            axes, cut = grid[row][column], cuts[row][column]
            if images:
                draw(axes, cut)
                if not row:
                    axes.set_title(title, color="white", fontsize=10, pad=5)
                if not column:
                    _row_title(axes, plane)
                    _place(axes, cut)
                    _scale_bar(axes, cut)
                _sides(axes, cut)
            if outlines:
                _outline(axes, scene, cut)
            _frame(axes, cut)
    return _finish(figure, images)


def _sheet(
    cuts: Sequence[Sequence[_Cut]], panel: float, *, bar: bool = False
) -> tuple[Figure, list[list[Axes]]]:
    """Panels in rows, every millimetre of the same size, black between them."""
    widest = max(cut.width for row in cuts for cut in row)
    heights = [max(cut.height for cut in row) * panel / widest for row in cuts]
    gap, left, top = 0.05, 0.3, 0.3
    right = 0.75 if bar else gap
    width = left + len(cuts[0]) * (panel + gap) + right
    height = top + sum(heights) + gap * (len(cuts) + 1)
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    grid, y = [], height - top
    for row, tall in zip(cuts, heights, strict=True):
        y -= tall
        line = []
        for column in range(len(row)):
            x = left + column * (panel + gap)
            line.append(
                figure.add_axes(
                    (x / width, y / height, panel / width, tall / height), frameon=False
                )
            )
        grid.append(line)
        y -= gap
    return figure, grid


def _finish(figure: Figure, images: bool) -> Figure:
    figure.set_facecolor("black" if images else "none")
    return figure


def _frame(axes: Axes, cut: _Cut) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlim(0, cut.width)
    axes.set_ylim(cut.height, 0)
    axes.set_aspect("equal", anchor="C")


def _grey(axes: Axes, image: Array, cut: _Cut) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, extent=cut.extent, interpolation="bilinear")
    if not image.any():
        middle = (cut.width / 2, cut.height / 2)
        axes.text(*middle, "missing", color=GREY, fontsize=10, ha="center", va="center")


def _outline(axes: Axes, scene: Scene, cut: _Cut) -> None:
    for region, mask in zip(REGIONS, scene.regions, strict=True):
        flat = cut(mask)
        if not flat.any():
            continue
        # A rim of zeros closes outlines at the edge of the picture.
        rows, columns = (n + 2 for n in flat.shape)
        step_y, step_x = cut.height / flat.shape[0], cut.width / flat.shape[1]
        axes.contour(
            (np.arange(columns) - 0.5) * step_x,
            (np.arange(rows) - 0.5) * step_y,
            np.pad(flat, 1).astype(np.float32),
            levels=[0.5],
            colors=[COLOURS[region]],
            linewidths=1.1,
        )


def _row_title(axes: Axes, title: str) -> None:
    figure = axes.figure
    box = axes.get_position(original=True)
    figure.text(
        0.16 / figure.get_figwidth(),  # type: ignore[union-attr]
        (box.y0 + box.y1) / 2,
        title,
        color="white",
        fontsize=10,
        rotation=90,
        ha="center",
        va="center",
    )


def _place(axes: Axes, cut: _Cut) -> None:
    axes.text(
        *(0.98, 0.02), cut.place, transform=axes.transAxes, color=GREY, fontsize=8, ha="right"
    )


def _sides(axes: Axes, cut: _Cut) -> None:
    left, right, top = _SIDES[cut.plane]
    for x, y, letter in ((0.03, 0.5, left), (0.97, 0.5, right), (0.5, 0.975, top)):
        axes.text(
            *(x, y),
            letter,
            transform=axes.transAxes,
            color=GREY,
            fontsize=8,
            ha="center",
            va="center",
        )


def _scale_bar(axes: Axes, cut: _Cut) -> None:
    length = 50 if cut.width > 100 else 10
    start, y = 0.03 * cut.width, 0.97 * cut.height
    axes.plot([start, start + length], [y, y], color="white", linewidth=2, solid_capstyle="butt")
    axes.text(start, y - 0.02 * cut.height, f"{length} mm", color="white", fontsize=7, va="bottom")
