# SPDX-License-Identifier: Apache-2.0
"""The trained power allocation behind the signature of the conventional ones, and any by name."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from fieldfare.common.errors import InputError
from fieldfare.common.runtime import resolve_device

from ..channels.profiles import read_profile
from ..networks.models import load_power_network
from ..networks.power import allocate
from ..options import LEARNED
from ..signals.cell_free import CellFree
from ..signals.satisfaction import Profile, least_power, maximise_satisfaction
from .methods import Allocation, baseline, for_reached, in_batches
from .options import REFINEMENT, SATISFACTION, AllocationOptions


def load_allocation(
    name_or_path: str,
    *,
    device: str = "cpu",
    profile: Path | None = None,
    refinement: int = REFINEMENT,
) -> Allocation:
    """A trained power allocation by name or path; see `load_power_network`.

    Args:
        device: where it runs; results come back to the networks' own.
        profile: what users ask for; needed by networks trained for satisfaction.
        refinement: plain steps behind the layers.

    Raises:
        InputError: no such model or device, or a profile that is missing or of other users.
    """
    network, _ = load_power_network(name_or_path)
    place = resolve_device(device)
    network = network.to(place)
    asked: Profile | None = None
    if network.objective == SATISFACTION:
        if profile is None:
            raise InputError(
                f"{name_or_path}: was trained for satisfaction; say what users ask for, --profile"
                " USERS.csv"
            )
        asked = read_profile(profile)

    def apply(cells: CellFree) -> Tensor:
        wanted = None
        if asked is not None and profile is not None:
            check_profile(profile, asked, cells)
            wanted = Profile(*(part.to(place, cells.beta.dtype) for part in asked))
        mu = allocate(network, cells.map(lambda part: part.to(place)), wanted, refinement)
        return mu.to(cells.beta.device)

    return for_reached(apply) if asked is None else apply


def satisfying(source: Path, profile: Profile, wanted: float | None, network: CellFree) -> Tensor:
    """mu (B, K, L) of the highest mean satisfaction, or of the least power for what is wanted.

    Raises:
        InputError: a profile of another number of users, or users that nothing reaches.
    """
    check_profile(source, profile, network)
    double = network.map(lambda part: part.double() if part.is_floating_point() else part)
    mu = maximise_satisfaction(double, profile)
    if wanted is not None:
        enough = torch.full_like(double.beta[..., 0, 0], wanted)
        mu = least_power(double, profile, enough, mu)
    return mu.to(network.beta)


def check_profile(source: Path, profile: Profile, network: CellFree) -> None:
    """Raise InputError unless the profile is of the network's users, all of them reached."""
    users = network.beta.shape[-2]
    if len(profile.weight) != users:
        raise InputError(
            f"{source}: {len(profile.weight)} users, but the networks have {users}; give one line"
            " for each"
        )
    if not bool(network.serving.any(-1).all()):
        raise InputError(f"{source}: some user of the networks is reached by no access point")


def find_allocation(method: str, model: str, options: AllocationOptions) -> Allocation:
    """A conventional allocation or the model, in batches.

    Raises:
        InputError: no such method, model or device, or what it needs is not installed.
    """
    if method == LEARNED:
        found = load_allocation(
            model, device=options.device, profile=options.profile, refinement=options.refine
        )
    elif method == SATISFACTION:
        if options.profile is None:
            raise InputError(
                f"--method {SATISFACTION}: say what users ask for, --profile USERS.csv"
            )
        profile = read_profile(options.profile)
        found = partial(satisfying, options.profile, profile, options.satisfied)
        return in_batches(found, options.batch)
    else:
        found = for_reached(baseline(method))
    return in_batches(found, options.batch)
