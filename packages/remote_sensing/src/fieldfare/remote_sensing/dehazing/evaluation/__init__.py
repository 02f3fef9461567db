# SPDX-License-Identifier: Apache-2.0
"""Comparison with clear tiles, the dark channel prior beside the models."""
