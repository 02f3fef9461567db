# SPDX-License-Identifier: Apache-2.0
"""wl-channel info."""

from pathlib import Path

from torch import Tensor, linalg

from fieldfare.common import console
from fieldfare.common.console.shared import JsonOptions
from fieldfare.common.errors import InputError

from ...channels.arrays import open_arrays
from ...channels.files import read_channels, read_network
from ...channels.layouts import find_channel


def info(source: Path, options: JsonOptions) -> None:
    """Print what a file holds."""
    arrays = open_arrays(source)
    if "beta" in arrays:
        result = _describe_network(source)
    elif find_channel(arrays, several=True) is not None:
        result = _describe_channels(source)
    else:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise InputError(f"{source}: holds neither H nor beta (it holds {found})")
    rows = [{"": name, " ": value} for name, value in result.items()]
    console.emit(result, as_json=options.as_json, text=console.table(rows))


def _describe_channels(source: Path) -> dict[str, object]:
    stored = read_channels(source)
    gain = stored.H.abs().double().square().mean(-1)
    values = linalg.svdvals(stored.H)
    condition = 20 * (values[..., 0] / values[..., -1]).double().log10()
    snr = 10 * (stored.power / stored.noise_power).double().log10()
    return {
        "kind": "channels",
        "shape": "x".join(map(str, stored.H.shape)),
        "users": stored.H.shape[-2],
        "antennas": stored.H.shape[-1],
        "type": str(stored.H.dtype).removeprefix("torch."),
        "power_over_noise_db": _span(snr),
        "gain_db": _span(10 * gain.log10()),
        "condition_db": _span(condition),
        "weights": stored.weights is not None,
        "estimate_and_truth": stored.H_true is not None,
    }


def _describe_network(source: Path) -> dict[str, object]:
    network = read_network(source)
    received = 10 * (network.beta * network.power.unsqueeze(-2)).double().log10()
    served = network.serving.sum(-1).double()
    return {
        "kind": "cell-free networks",
        "shape": "x".join(map(str, network.beta.shape)),
        "users": network.beta.shape[-2],
        "access_points": network.beta.shape[-1],
        "antennas": _span(network.antennas.double()),
        "strongest_ap_snr_db": _span(received.amax(-1)),
        "serving_aps_of_a_user": _span(served),
        "shared_pilots": network.pilots is not None,
    }


def _span(values: Tensor) -> str:
    """Median and range."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return f"{low:.4g}"
    return f"{float(values.median()):.4g} ({low:.4g} to {high:.4g})"
