# SPDX-License-Identifier: Apache-2.0
"""Samples drawn anew for every step, the run, validation."""
