# SPDX-License-Identifier: Apache-2.0
"""The same answers for less: networks asked only where it is worth it, weights left out."""
