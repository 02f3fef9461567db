# SPDX-License-Identifier: Apache-2.0
"""From a raster to an enlarged one."""
