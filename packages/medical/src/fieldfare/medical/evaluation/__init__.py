# SPDX-License-Identifier: Apache-2.0
"""Measures of segmentations against the truth, voxel by voxel and lesion by lesion."""
