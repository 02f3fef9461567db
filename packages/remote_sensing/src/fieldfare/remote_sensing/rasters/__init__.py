# SPDX-License-Identifier: Apache-2.0
"""Rasters of any kind: reading, writing as GeoTIFF, rows on disk, pictures."""
