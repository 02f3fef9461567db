# SPDX-License-Identifier: Apache-2.0
"""wl-precode infer."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from fieldfare.common.errors import InputError

from ... import inference
from ...channels.files import ChannelFile, read_channels
from ...networks.models import PRECODING_TASK
from ...signals.fairness import fair_weights, next_past_rate
from ..learned import find_precoder
from ..methods import Precoder, exact_rate, flat
from ..options import FAIR, WEIGHTED, InferOptions
from ..streams import Streams, precode_streams, stream_rates


def infer(inputs: Sequence[Path], options: InferOptions) -> None:
    """Read channels, precode, write W and rates: of one file, or of many into a folder."""
    if options.schedule == FAIR and options.method not in WEIGHTED:
        raise InputError(
            f"--schedule {FAIR}: {options.method} heeds no weights; choose --method"
            f" {', '.join(WEIGHTED)}"
        )
    if options.streams and options.antenna_power:
        raise InputError("--streams: not with --antenna-power; choose one")
    inference.infer(inputs, options, _task)


def _task(options: InferOptions) -> inference.Task[ChannelFile]:
    return inference.Task(
        name=PRECODING_TASK,
        noun="files of channels",
        result="W",
        read=partial(_read, options),
        sizes=partial(_sizes, options),
        first=partial(_first, options),
        load=partial(_load, options),
    )


def _read(options: InferOptions, path: Path) -> ChannelFile:
    levels = {"noise_power": options.noise_power, "power": options.power}
    found = read_channels(path, **levels, several=options.streams is not None)
    if options.schedule == FAIR and found.past_rate is None:
        raise InputError(
            f"{path}: no past_rate, which --schedule {FAIR} needs; add every user's rate so far"
            " (zeros at first)"
        )
    return found


def _axes(options: InferOptions) -> int:
    """Of one channel."""
    return 2 if options.streams is None else 3


def _sizes(options: InferOptions, stored: ChannelFile) -> dict[str, int]:
    users, *_, antennas = stored.H.shape[-_axes(options) :]
    channels = stored.H.numel() // stored.H.shape[-_axes(options) :].numel()
    return {"channels": channels, "users": users, "antennas": antennas}


def _first(options: InferOptions, stored: ChannelFile, count: int) -> ChannelFile:
    each = stored.H.shape[-_axes(options) :]
    rows = stored.H if options.streams is None else stored.H[..., 0, :]
    _, levels, weights = flat(rows, (stored.noise_power, stored.power), stored.weights)
    past = flat(rows, (), stored.past_rate)[2]
    H = stored.H.reshape(-1, *each)[:count]
    truth = None if stored.H_true is None else stored.H_true.reshape(-1, *each)[:count]
    shares = [None if part is None else part[:count] for part in (weights, past)]
    return ChannelFile(H, levels[0][:count], levels[1][:count], shares[0], truth, shares[1])


def _load(options: InferOptions) -> inference.Method[ChannelFile]:
    precoder = find_precoder(options.method, options.model, options, options.antenna_power)
    return partial(_precode, precoder, options)


def _precode(precoder: Precoder, options: InferOptions, channels: ChannelFile) -> inference.Result:
    weights = channels.weights
    if options.schedule == FAIR and channels.past_rate is not None:
        weights = fair_weights(channels.past_rate, weights).expand(
            channels.H.shape[: 1 - _axes(options)]
        )
    given = channels.H, channels.power, channels.noise_power, weights
    truth = channels.H if channels.H_true is None else channels.H_true
    receivers: Tensor | None = None
    flags: Tensor | None = None
    if options.streams is None:
        W, flags = precoder(*given)
        exact = exact_rate(truth, W, channels.noise_power)
    else:
        W, receivers = precode_streams(precoder, *given, options.streams)
        exact = stream_rates(truth, Streams(W, receivers), channels.noise_power)
    rates = exact.to(channels.H.real.dtype)
    past = channels.past_rate
    guarded = None if flags is None else int(flags.sum())
    mean = float(exact.sum(-1).mean())
    arrays = {"W": W, "rate": rates, "guarded": flags, "receivers": receivers}
    if channels.symbols is not None:
        arrays = {name: _as_sionna(part, name, channels) for name, part in arrays.items()}
    if past is not None:
        arrays["past_rate"] = next_past_rate(past, rates, options.past_slots)
    return inference.Result(
        arrays=arrays,
        numbers={
            "channels": rates[..., 0].numel(),
            "users": rates.shape[-1],
            "antennas": W.shape[-2],
            "mean_sum_rate": mean,
            "guarded": guarded,
        },
        text=f"mean sum rate {mean:.4g} bits/s/Hz",
        note=f"guard: RZF was the better on {guarded} of {rates[..., 0].numel()} channels"
        if guarded
        else "",
    )


def _as_sionna(array: Tensor | None, name: str, channels: ChannelFile) -> Tensor | None:
    """F as [symbol, subcarrier] again; W gets the axis of its one transmitter, users come first.

    W: [batch, transmitter, symbol, subcarrier, its antenna, stream]; rate: [batch, receiver,
    symbol, subcarrier].
    """
    if array is None or channels.symbols is None:
        return array
    array = array.unflatten(1, (channels.symbols, -1))
    if name == "W":
        return array.unsqueeze(1)
    return array.movedim(3, 1) if array.ndim > 3 else array
