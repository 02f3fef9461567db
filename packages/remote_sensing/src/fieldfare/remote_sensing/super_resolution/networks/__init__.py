# SPDX-License-Identifier: Apache-2.0
"""EDiffSR and the diffusion it is trained for, its fast and exported forms, conversion."""
