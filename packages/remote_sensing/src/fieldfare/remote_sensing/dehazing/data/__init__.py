# SPDX-License-Identifier: Apache-2.0
"""Training pairs: clear tiles, and the same under synthetic haze."""
