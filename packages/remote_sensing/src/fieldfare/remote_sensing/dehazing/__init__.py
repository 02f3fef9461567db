# SPDX-License-Identifier: Apache-2.0
"""Haze and thin cloud taken off GeoTIFFs (DEA-Net)."""
