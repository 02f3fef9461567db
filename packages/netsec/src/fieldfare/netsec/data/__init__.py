# SPDX-License-Identifier: Apache-2.0
"""Flows for training and as tables: labels, sets of captures, hidden fields, files."""
