# SPDX-License-Identifier: Apache-2.0
"""Strategies; each is `run.Strategy`."""
