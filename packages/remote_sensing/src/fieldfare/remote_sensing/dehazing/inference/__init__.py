# SPDX-License-Identifier: Apache-2.0
"""From a hazy raster to a clear one."""
