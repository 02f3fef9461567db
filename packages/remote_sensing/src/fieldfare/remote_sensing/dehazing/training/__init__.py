# SPDX-License-Identifier: Apache-2.0
"""The loss, the training run, and what a trained model knows."""
