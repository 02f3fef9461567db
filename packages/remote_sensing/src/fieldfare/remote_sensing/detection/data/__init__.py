# SPDX-License-Identifier: Apache-2.0
"""Labelled scenes: reading them, the table that lists them, patches for training."""
