# SPDX-License-Identifier: Apache-2.0
"""Training pairs: tiles, their reduced copies, and what imagery does to those."""
