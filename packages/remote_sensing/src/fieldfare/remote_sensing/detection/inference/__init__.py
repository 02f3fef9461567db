# SPDX-License-Identifier: Apache-2.0
"""From a scene to outlines: prepare, predict, outline, square, write."""
