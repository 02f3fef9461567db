# SPDX-License-Identifier: Apache-2.0
"""Measures of masks, outlines and labels against the truth; tables and pictures of them."""
