# SPDX-License-Identifier: Apache-2.0
"""A digest of weights, to tell one start of a training run from another."""

import hashlib
from collections.abc import Mapping

import numpy as np
from torch import Tensor


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of all tensors in turn."""
    found = hashlib.sha256()
    for tensor in tensors.values():
        found.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    return found.hexdigest()
