# SPDX-License-Identifier: Apache-2.0
"""A batch of networks for a variant, ready to be timed."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..channels.drops import draw_networks
from .learned import find_allocation
from .options import DEFAULT_MODEL, AllocationOptions

NETWORKS, USERS, APS, ANTENNAS = 64, 10, 50, 4


def unit(settings: Mapping[str, Any]) -> Callable[[], object]:
    """What allocates in 64 networks of 10 users and 50 access points with a variant's settings."""
    generator = torch.Generator().manual_seed(0)
    cells = draw_networks(NETWORKS, USERS, APS, ANTENNAS, generator=generator)
    model = settings.get("model", DEFAULT_MODEL)
    allocation = find_allocation(settings["method"], model, AllocationOptions())
    return lambda: allocation(cells)
