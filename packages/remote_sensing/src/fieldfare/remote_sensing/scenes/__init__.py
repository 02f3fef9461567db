# SPDX-License-Identifier: Apache-2.0
"""Scenes on the ground, and the table of those that have labels."""
