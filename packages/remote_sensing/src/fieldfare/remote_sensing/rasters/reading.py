# SPDX-License-Identifier: Apache-2.0
"""Reading rasters: checked opening, windows, bands, validity, value ranges."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio.windows
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from fieldfare.common.errors import InputError
from fieldfare.common.windows import reflect_indices

from .georeference import Georeference
from .opening import open_raster, reason

SAMPLE_TYPES = ("uint8", "uint16", "int16", "float32")


@dataclass(frozen=True)
class ValueRange:
    """The values that a model sees as 0 and 1."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:g}:{self.high:g}"

    @classmethod
    def parse(cls, text: str) -> "ValueRange":
        """Read `LOW:HIGH`; raises InputError unless LOW < HIGH, both finite."""
        try:
            low, high = (float(part) for part in text.split(":"))
        except ValueError:
            low = high = math.nan
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise InputError(f"--range {text}: give LOW:HIGH, for example 0:10000, or auto")
        return cls(low, high)


class Scene:
    """A raster opened for reading by windows, with its selected bands.

    Args:
        path: any raster GDAL reads.
        bands: 1-based band numbers; all but alpha when None. A band marked as alpha that is named
            here is data (near infrared is often marked so by mistake).
        window: part of the raster to work on; the whole when None.
        dataset: the raster when it is open already, or resampled on reading; the scene closes it.
        place: where it lies, if not where the dataset says.

    Raises:
        InputError: missing, not a raster, no bands, unsupported sample type, or a band or window
            outside it.
    """

    def __init__(
        self,
        path: Path,
        bands: Sequence[int] | None = None,
        window: Window | None = None,
        dataset: DatasetReader | None = None,
        place: Georeference | None = None,
    ) -> None:
        self.path, self.place = path, place
        self.dataset = dataset or open_raster(path)
        try:
            self._select(bands)
            self.crop(window)
        except BaseException:
            self.dataset.close()
            raise

    def _select(self, bands: Sequence[int] | None) -> None:
        count, interp = self.dataset.count, self.dataset.colorinterp
        alpha = [i + 1 for i, kind in enumerate(interp) if kind == ColorInterp.alpha]
        self.alpha = alpha[0] if alpha else None
        self.bands = tuple(bands or (b for b in range(1, count + 1) if b != self.alpha))
        if self.alpha in self.bands:
            self.alpha = None
        if not self.bands:
            raise InputError(f"{self.path}: has no band besides alpha")
        for band in self.bands:
            if not 1 <= band <= count:
                raise InputError(f"{self.path}: has no band {band}; it has 1 to {count}")
        types = {self.dataset.dtypes[band - 1] for band in self.bands}
        if len(types) > 1 or not types <= set(SAMPLE_TYPES):
            raise InputError(
                f"{self.path}: bands are {', '.join(sorted(types))}; convert them to one of "
                f"{', '.join(SAMPLE_TYPES)} first (gdal_translate -ot)"
            )
        self.dtype = np.dtype(types.pop())

    def crop(self, window: Window | None) -> None:
        """Work on a part from now on; the whole when None."""
        whole = Window(0, 0, self.dataset.width, self.dataset.height)
        if window is None:
            window = whole
        elif not rasterio.windows.intersect(window, whole):
            raise InputError(
                f"{self.path}: the window lies outside the raster of {whole.width} x {whole.height}"
            )
        self.window = window.intersection(whole)
        self.height, self.width = int(self.window.height), int(self.window.width)
        self.top, self.left = int(self.window.row_off), int(self.window.col_off)

    @property
    def crs(self) -> CRS | None:
        """The coordinate system; None without, and where it has no place on Earth."""
        return self.place.crs if self.place else self.dataset.crs

    def __enter__(self) -> "Scene":
        return self

    def __exit__(self, *_: object) -> None:
        self.dataset.close()

    def read(self, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
        """Values of the selected bands, (bands, height, width), in the raster's own type.

        Rows and columns are half-open ranges in pixels of the whole raster.
        """
        return self._read(list(self.bands), rows, columns)

    def valid(
        self, values: np.ndarray, rows: tuple[int, int], columns: tuple[int, int]
    ) -> np.ndarray:
        """Which samples hold data, (bands, height, width) bool, for what `read` gave.

        A sample is missing where it equals its band's nodata value, is NaN, or where the pixel is
        masked or wholly transparent.
        """
        valid = np.ones(values.shape, bool)
        for index, band in enumerate(self.bands):
            nodata = self.dataset.nodatavals[band - 1]
            if nodata is not None and not math.isnan(nodata):
                valid[index] &= values[index] != nodata
        if self.dtype.kind == "f":
            valid &= ~np.isnan(values)
        if self.alpha or self.has_mask_band:
            valid &= self.read_mask(rows, columns) != 0
        return valid

    def read_around(
        self, start: tuple[int, ...], tile: int, margin: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """A square tile with a margin and its validity, reflected where it leaves the raster.

        Args:
            start: first row and column of the tile, without margin; may be negative.

        Returns:
            Two arrays (bands, tile + 2 margin, tile + 2 margin).
        """
        sides = (self.dataset.height, self.dataset.width)
        rows, columns = (
            reflect_indices(first - margin, first + tile + margin, side)
            for first, side in zip(start, sides, strict=True)
        )
        spans = [(int(i.min()), int(i.max()) + 1) for i in (rows, columns)]
        values = self.read(*spans)
        valid = self.valid(values, *spans)
        chosen = np.ix_(rows - spans[0][0], columns - spans[1][0])
        return values[:, chosen[0], chosen[1]], valid[:, chosen[0], chosen[1]]

    def read_mask(self, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
        """The alpha band, or else the mask of the whole raster, (height, width); 0 is missing."""
        if self.alpha:
            mask: np.ndarray = self._read([self.alpha], rows, columns)[0]
        else:
            window = Window.from_slices(rows, columns)
            mask = self.dataset.read_masks(self.bands[0], window=window)
        return mask

    @property
    def nodata(self) -> float | None:
        """Nodata value of the first selected band; a GeoTIFF knows one for all bands."""
        value: float | None = self.dataset.nodatavals[self.bands[0] - 1]
        return value

    @property
    def has_mask_band(self) -> bool:
        """Whether validity is kept in a mask of the whole raster rather than in nodata or alpha."""
        flags = self.dataset.mask_flag_enums[self.bands[0] - 1]
        return MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags

    @property
    def dense(self) -> bool:
        """Whether every pixel is sure to hold data."""
        return (
            self.dtype.kind != "f"
            and not self.alpha
            and not self.has_mask_band
            and all(self.dataset.nodatavals[band - 1] is None for band in self.bands)
        )

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Values and validity of the whole scene, in pieces of at most 2048 x 2048 pixels."""
        step = 2048
        bottom, right = self.top + self.height, self.left + self.width
        for top in range(self.top, bottom, step):
            for left in range(self.left, right, step):
                rows = (top, min(top + step, bottom))
                columns = (left, min(left + step, right))
                values = self.read(rows, columns)
                yield values, self.valid(values, rows, columns)

    def _read(
        self, bands: list[int], rows: tuple[int, int], columns: tuple[int, int]
    ) -> np.ndarray:
        try:
            values: np.ndarray = self.dataset.read(bands, window=Window.from_slices(rows, columns))
            return values
        except RasterioError as error:
            raise InputError(
                f"{self.path}: cannot be read at rows {rows[0]} to {rows[1]}: "
                f"the file is truncated or damaged ({reason(error)})"
            ) from None


def fill_missing(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Missing samples take the value of their band's nearest valid one; (bands, h, w).

    A band without any takes 0.5, the middle of the range.
    """
    planes = []
    for plane, kept in zip(values, valid, strict=True):
        if not kept.any():
            plane = np.full_like(plane, 0.5)
        elif not kept.all():
            from scipy.ndimage import distance_transform_edt

            nearest = distance_transform_edt(~kept, return_distances=False, return_indices=True)
            plane = plane[tuple(nearest)]
        planes.append(plane)
    return np.stack(planes)
