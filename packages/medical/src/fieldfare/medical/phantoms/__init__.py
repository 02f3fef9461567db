# SPDX-License-Identifier: Apache-2.0
"""Synthetic labelled cases: healthy anatomy, lesions, contrasts."""
