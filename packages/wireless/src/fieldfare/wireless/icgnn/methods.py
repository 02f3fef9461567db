# SPDX-License-Identifier: Apache-2.0
"""The trained networks behind the signatures of the conventional methods, for the commands."""

import torch
from torch import Tensor

from fieldfare.common.runtime import resolve_device, resolve_precision

from ..cell_free.methods import Allocation
from ..cell_free.model import CellFree
from ..precoding.methods import Precoded, Precoder
from ..precoding.solve import Solver
from .graph import EDGE_FEATURES, NODE_FEATURES
from .models import load_power_network, load_precoder_network
from .power import allocate
from .precoder import IcgnnPrecoder, precode
from .refine import refine


def load_precoder(
    name_or_path: str,
    *,
    guard: bool = True,
    solver: Solver = "cholesky",
    refinement: int = 0,
    device: str = "cpu",
    precision: str = "fp32",
) -> Precoder:
    """A trained precoder by name or path.

    Args:
        name_or_path: see `load_precoder_network`.
        guard: take RZF where it has the higher predicted sum rate.
        solver: of every linear system.
        refinement: accelerated WMMSE steps from the network's point.
        device: where it runs; results come back to the channels' own.
        precision: `fp32`, `bf16` or `auto`, of the weights and of nothing else.

    Raises:
        InputError: no such model or device.
    """
    network, _ = load_precoder_network(name_or_path)
    place = resolve_device(device)
    network = network.to(place, resolve_precision(precision, place))

    def apply(H: Tensor, power: Tensor, noise_power: Tensor, weights: Tensor | None) -> Precoded:
        moved, limit, noise = (part.to(place) for part in (H, power, noise_power))
        share = None if weights is None else weights.to(place)
        with torch.no_grad():
            W, _, flags = precode(
                network, moved, limit, noise, weights=share, guard=guard, solver=solver
            )
            W = refine(moved, W, limit, noise, steps=refinement, weights=share, solver=solver)
        return Precoded(W.to(H.device), flags.to(H.device) if guard else None)

    return apply


def load_allocation(name_or_path: str, *, device: str = "cpu") -> Allocation:
    """A trained power allocation by name or path; see `load_precoder`."""
    network, _ = load_power_network(name_or_path)
    place = resolve_device(device)
    network = network.to(place)

    def apply(cells: CellFree) -> Tensor:
        return allocate(network, cells.map(lambda part: part.to(place))).to(cells.beta.device)

    return apply


def network_macs(name_or_path: str, users: int) -> int:
    """Real MACs of the message passing for one cell; the layers' solves come on top."""
    network, _ = load_precoder_network(name_or_path)
    return count_macs(network, users)


def count_macs(network: IcgnnPrecoder, users: int) -> int:
    """As `network_macs`, of a network at hand; linear layers only."""
    width, messages = network.config["width"], network.config["messages"]
    layers = network.config["layers"]
    edge = EDGE_FEATURES * messages
    node = 2 * width * messages
    node += 2 * width * (width + NODE_FEATURES + 2 * messages) + 2 * width * width
    node += 2 * (width + NODE_FEATURES)
    return layers * (users * users * edge + users * node) + users * NODE_FEATURES * width
