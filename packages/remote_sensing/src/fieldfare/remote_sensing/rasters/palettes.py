# SPDX-License-Identifier: Apache-2.0
"""Images of indices into a table of colours, read as the colours they mean."""

from xml.sax.saxutils import escape, quoteattr

import rasterio
from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader

COLOURS = ("Red", "Green", "Blue", "Alpha")


def decoded(dataset: DatasetReader) -> DatasetReader:
    """The dataset, or its colours where its only band has a palette; the dataset is closed then.

    Alpha is a fourth band where a colour, such as that of the nodata index, is not opaque.
    """
    if dataset.count != 1 or dataset.colorinterp[0] != ColorInterp.palette:
        return dataset
    try:
        table = dataset.colormap(1)
    except ValueError:
        return dataset
    alpha = any(colour[3] < 255 for colour in table.values())
    document = _document(dataset, 3 + alpha)
    dataset.close()
    return rasterio.open(document, driver="VRT")


def _document(dataset: DatasetReader, count: int) -> str:
    """A VRT of the decoded bands, in the same place."""
    parts = [f'<VRTDataset rasterXSize="{dataset.width}" rasterYSize="{dataset.height}">']
    points, crs = dataset.gcps
    if points:
        listed = "".join(
            f'<GCP Id={quoteattr(str(p.id))} Pixel="{p.col!r}" Line="{p.row!r}" '
            f'X="{p.x!r}" Y="{p.y!r}" Z="{p.z or 0.0!r}"/>'
            for p in points
        )
        parts.append(f"<GCPList Projection={quoteattr(crs.to_wkt())}>{listed}</GCPList>")
    else:
        if dataset.crs:
            parts.append(f"<SRS>{escape(dataset.crs.to_wkt())}</SRS>")
        if not dataset.transform.is_identity:
            numbers = ", ".join(repr(float(v)) for v in dataset.transform.to_gdal())
            parts.append(f"<GeoTransform>{numbers}</GeoTransform>")
    items = "".join(
        f"<MDI key={quoteattr(key)}>{escape(value)}</MDI>" for key, value in dataset.tags().items()
    )
    parts.append(f"<Metadata>{items}</Metadata>")
    for number in range(1, count + 1):
        parts.append(
            f'<VRTRasterBand dataType="Byte" band="{number}">'
            f"<ColorInterp>{COLOURS[number - 1]}</ColorInterp><ComplexSource>"
            f'<SourceFilename relativeToVRT="0">{escape(dataset.name)}</SourceFilename>'
            f"<SourceBand>1</SourceBand><ColorTableComponent>{number}</ColorTableComponent>"
            "</ComplexSource></VRTRasterBand>"
        )
    return "".join([*parts, "</VRTDataset>"])
