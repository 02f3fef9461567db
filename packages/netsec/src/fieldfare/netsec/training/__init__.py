# SPDX-License-Identifier: Apache-2.0
"""The training run, what it draws, and adapters for single sites."""
