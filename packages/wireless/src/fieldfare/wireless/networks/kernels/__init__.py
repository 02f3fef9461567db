# SPDX-License-Identifier: Apache-2.0
"""Compiled loops for the CPU: eight channels side by side in vector registers."""
