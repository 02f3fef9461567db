# SPDX-License-Identifier: Apache-2.0
"""Brain tumour segmentation: the command med-seg and the library behind it."""

__version__ = "0.4.0"
