# SPDX-License-Identifier: Apache-2.0
"""Volumes of any format: reading, writing, turning, resampling."""
