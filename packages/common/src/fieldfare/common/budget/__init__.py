# SPDX-License-Identifier: Apache-2.0
"""The best result that a time, a memory or a number of operations allows."""

from .choose import Chosen, Expected, Limits, choose
from .front import dominated
from .variants import Variant, Variants, packaged_variants, variants_of

__all__ = [
    "Chosen",
    "Expected",
    "Limits",
    "Variant",
    "Variants",
    "choose",
    "dominated",
    "packaged_variants",
    "variants_of",
]
