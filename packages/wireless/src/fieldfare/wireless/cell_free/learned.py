# SPDX-License-Identifier: Apache-2.0
"""The trained power allocation behind the signature of the conventional ones, and any by name."""

from torch import Tensor

from fieldfare.common.runtime import resolve_device

from ..networks.models import load_power_network
from ..networks.power import allocate
from ..options import LEARNED
from ..signals.cell_free import CellFree
from .methods import Allocation, baseline, for_reached, in_batches
from .options import AllocationOptions


def load_allocation(name_or_path: str, *, device: str = "cpu") -> Allocation:
    """A trained power allocation by name or path; see `load_power_network`."""
    network, _ = load_power_network(name_or_path)
    place = resolve_device(device)
    network = network.to(place)

    def apply(cells: CellFree) -> Tensor:
        return allocate(network, cells.map(lambda part: part.to(place))).to(cells.beta.device)

    return apply


def find_allocation(method: str, model: str, options: AllocationOptions) -> Allocation:
    """A conventional allocation or the model, in batches.

    Raises:
        InputError: no such method, model or device, or what it needs is not installed.
    """
    if method == LEARNED:
        found = load_allocation(model, device=options.device)
    else:
        found = baseline(method)
    return in_batches(for_reached(found), options.batch)
