# SPDX-License-Identifier: Apache-2.0
"""Losses, the training run, and adaptation from noisy to clean labels."""
