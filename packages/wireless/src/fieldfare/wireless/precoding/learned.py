# SPDX-License-Identifier: Apache-2.0
"""The trained precoder behind the signature of the conventional ones, and any by its name."""

import torch
from torch import Tensor

from fieldfare.common.runtime import resolve_device, resolve_precision

from ..networks.models import load_precoder_network
from ..networks.precoder import precode
from ..networks.refine import refine
from ..options import LEARNED
from ..signals.solve import Solver
from .methods import Precoded, Precoder, baseline, in_batches
from .options import PrecoderOptions


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


def find_precoder(method: str, model: str, options: PrecoderOptions) -> Precoder:
    """A conventional precoder or the model, in batches.

    Raises:
        InputError: no such method, model or device.
    """
    if method != LEARNED:
        return in_batches(baseline(method), options.batch)
    learned = load_precoder(
        model,
        guard=options.guard,
        solver=options.solver,
        refinement=options.refine,
        device=options.device,
        precision=options.precision,
    )
    return in_batches(learned, options.batch)
