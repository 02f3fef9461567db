# SPDX-License-Identifier: Apache-2.0
"""wl-precode infer."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ... import inference
from ...channels.files import ChannelFile, read_channels
from ...networks.models import PRECODING_TASK
from ..learned import find_precoder
from ..methods import Precoder, exact_rate, flat
from ..options import InferOptions


def infer(inputs: Sequence[Path], options: InferOptions) -> None:
    """Read channels, precode, write W and rates: of one file, or of many into a folder."""
    task = inference.Task(
        name=PRECODING_TASK,
        noun="files of channels",
        result="W",
        read=partial(read_channels, noise_power=options.noise_power, power=options.power),
        sizes=_sizes,
        first=_first,
        load=partial(_load, options),
    )
    inference.infer(inputs, options, task)


def _sizes(stored: ChannelFile) -> dict[str, int]:
    users, antennas = stored.H.shape[-2:]
    return {"channels": stored.H[..., 0, 0].numel(), "users": users, "antennas": antennas}


def _first(stored: ChannelFile, count: int) -> ChannelFile:
    H, levels, weights = flat(stored.H, (stored.noise_power, stored.power), stored.weights)
    truth = None if stored.H_true is None else stored.H_true.reshape(H.shape)[:count]
    share = None if weights is None else weights[:count]
    return ChannelFile(H[:count], levels[0][:count], levels[1][:count], share, truth)


def _load(options: InferOptions) -> inference.Method[ChannelFile]:
    precoder = find_precoder(options.method, options.model, options, options.antenna_power)
    return partial(_precode, precoder)


def _precode(precoder: Precoder, channels: ChannelFile) -> inference.Result:
    W, flags = precoder(channels.H, channels.power, channels.noise_power, channels.weights)
    truth = channels.H if channels.H_true is None else channels.H_true
    exact = exact_rate(truth, W, channels.noise_power)
    rates = exact.to(channels.H.real.dtype)
    count = rates[..., 0].numel()
    guarded = None if flags is None else int(flags.sum())
    mean = float(exact.sum(-1).mean())
    return inference.Result(
        arrays={"W": W, "rate": rates, "guarded": flags},
        numbers={
            "channels": count,
            "users": rates.shape[-1],
            "antennas": W.shape[-2],
            "mean_sum_rate": mean,
            "guarded": guarded,
        },
        text=f"mean sum rate {mean:.4g} bits/s/Hz",
        note=f"guard: RZF was the better on {guarded} of {count} channels" if guarded else "",
    )
