# SPDX-License-Identifier: Apache-2.0
"""Packaged weights: safetensors files with their cards inside, and as pages beside them."""
