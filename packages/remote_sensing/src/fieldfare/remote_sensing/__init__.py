# SPDX-License-Identifier: Apache-2.0
"""Deep learning on remote-sensing rasters."""

__version__ = "0.5.0"
