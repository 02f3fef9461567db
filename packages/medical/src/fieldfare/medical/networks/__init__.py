# SPDX-License-Identifier: Apache-2.0
"""Networks for brain tumour segmentation, one architecture a file."""
