# SPDX-License-Identifier: Apache-2.0
"""What is used of torch_geometric, imported without the notices that its import causes in torch."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    from torch_geometric.data import Batch, Data
    from torch_geometric.nn import MessagePassing

__all__ = ["Batch", "Data", "MessagePassing"]
