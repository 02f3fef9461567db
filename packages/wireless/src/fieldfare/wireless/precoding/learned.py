# SPDX-License-Identifier: Apache-2.0
"""The trained precoder behind the signature of the conventional ones, and any by its name."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fieldfare.common.errors import InputError
from fieldfare.common.runtime import resolve_device, resolve_precision

from ..networks.guard import best_of
from ..networks.models import load_precoder_network
from ..networks.rounded import RoundedPrecoder
from ..networks.users import precode_users
from ..options import LEARNED
from ..signals.antenna_power import use_antenna_power
from ..signals.linear import limit_antenna_power
from ..signals.solve import Solver
from .methods import Precoded, Precoder, baseline, compiled, flat, for_served, in_batches
from .options import PrecoderOptions

if TYPE_CHECKING:
    from ..networks.kernels.channels import Compiled


def load_precoder(
    name_or_path: str,
    *,
    guard: bool = True,
    solver: Solver = "cholesky",
    refinement: int = 0,
    select: bool = True,
    device: str = "cpu",
    precision: str = "fp32",
) -> Precoder:
    """A trained precoder by name or path.

    Args:
        name_or_path: see `load_precoder_network`.
        guard: take RZF where it has the higher predicted sum rate.
        solver: of every linear system.
        refinement: WMMSE steps from the network's point.
        select: also start from the users of greedy selection, and take the better.
        device: where it runs; results come back to the channels' own.
        precision: `fp32`, `bf16` or `auto`, of the weights and of nothing else; `auto` is `fp32` on
            the CPU. A model of rounded layers has its own.

    Raises:
        InputError: no such model or device, or another precision for a model of rounded layers.
    """
    network, _ = load_precoder_network(name_or_path)
    place = resolve_device(device)
    # On the CPU compiled loops in float32 are ten times as fast as torch in bfloat16.
    looped = precision == "auto" and place.type == "cpu"
    wanted = resolve_precision("fp32" if looped else precision, place)
    rounded = isinstance(network, RoundedPrecoder)
    if rounded and precision == "bf16":
        raise InputError(f"--precision bf16: {name_or_path} has its own bits; leave it out")
    network = network.to(place) if rounded else network.to(place, wanted)
    numbers: Compiled | None = None

    def apply(H: Tensor, power: Tensor, noise_power: Tensor, weights: Tensor | None) -> Precoded:
        moved, limit, noise = (part.to(place) for part in (H, power, noise_power))
        share = None if weights is None else weights.to(place)
        W, flags = precode_users(
            network,
            moved,
            limit,
            noise,
            share,
            guard=guard,
            solver=solver,
            refinement=refinement,
            select=select,
        )
        return Precoded(W.to(H.device), flags.to(H.device) if guard else None)

    def in_loops(H: Tensor, power: Tensor, noise_power: Tensor, weights: Tensor | None) -> Precoded:
        from ..networks.kernels.channels import compile_network  # loads numba
        from ..networks.kernels.users import precode_compiled

        nonlocal numbers
        numbers = compile_network(network) if numbers is None else numbers
        W, flags = precode_compiled(
            numbers,
            H,
            power,
            noise_power,
            weights,
            guard=guard,
            refinement=refinement,
            select=select,
        )
        return Precoded(W, flags if guard else None)

    plain = for_served(apply)
    if place.type == "cpu" and solver == "cholesky" and network.dtype != torch.bfloat16:
        return compiled(in_loops, plain)
    return plain


def within_antennas(precoder: Precoder, antenna_power: float, *, improve: bool) -> Precoder:
    """The precoder under a limit of every antenna.

    W is scaled down by one factor until all keep the limit. To `improve` it, it is the start of
    `use_antenna_power`; the better one is taken, and neither is below RZF scaled down.
    """

    def apply(H: Tensor, power: Tensor, noise_power: Tensor, weights: Tensor | None) -> Precoded:
        found = precoder(H, power, noise_power, weights)
        W = limit_antenna_power(found.W, antenna_power)
        if not improve:
            return Precoded(W, found.guarded)
        H, (power, noise_power), share = flat(H, (power, noise_power), weights)
        used = use_antenna_power(H, found.W, power, noise_power, antenna_power, share).to(H.dtype)
        safe = baseline("rzf")(H, power, noise_power, share).W
        candidates = [used, W, limit_antenna_power(safe, antenna_power)]
        best = best_of(H, candidates, noise_power, share)
        return Precoded(best.W, None if found.guarded is None else best.number == 2)

    return apply


def find_precoder(
    method: str, model: str, options: PrecoderOptions, antenna_power: float | None = None
) -> Precoder:
    """A conventional precoder or the model, in batches, under a limit of every antenna if given.

    Raises:
        InputError: no such method, model or device.
    """
    if method == LEARNED:
        precoder = load_precoder(
            model,
            guard=options.guard,
            solver=options.solver,
            refinement=options.refine,
            select=options.schedule != "network",
            device=options.device,
            precision=options.precision,
        )
    else:
        precoder = baseline(method)
    if antenna_power is not None:
        improve = method in (LEARNED, "wmmse")
        precoder = within_antennas(precoder, antenna_power, improve=improve)
    return in_batches(precoder, options.batch)
