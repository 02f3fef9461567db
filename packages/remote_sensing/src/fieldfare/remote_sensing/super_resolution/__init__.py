# SPDX-License-Identifier: Apache-2.0
"""EDiffSR diffusion super-resolution of GeoTIFFs (command rs-sr)."""
