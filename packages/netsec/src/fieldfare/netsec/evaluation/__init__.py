# SPDX-License-Identifier: Apache-2.0
"""Scores, what a user would try instead, an audit of shortcuts, pictures."""
