# SPDX-License-Identifier: Apache-2.0
"""Measures of enlarged images against the truth."""
