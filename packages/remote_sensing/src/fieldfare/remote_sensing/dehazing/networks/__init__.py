# SPDX-License-Identifier: Apache-2.0
"""DEA-Net, its fast form, export, conversion, models by name."""
