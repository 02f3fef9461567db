# SPDX-License-Identifier: Apache-2.0
"""Bbjects from aerial and drone imagery: the command `rs-detect`."""
