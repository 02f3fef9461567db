# SPDX-License-Identifier: Apache-2.0
"""wl-precode eval."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fieldfare.common import console
from fieldfare.common.errors import InputError
from fieldfare.common.progress import Progress
from fieldfare.common.runtime import set_threads
from fieldfare.common.weights import locate

from ...channels.draw import draw_channels
from ...channels.files import read_channels
from ...evaluation.choice import choose
from ...evaluation.tables import Row, check_folder, publish
from ...networks.kernels.notice import told_of_compiling
from ...networks.models import PRECODING_TASK
from ...options import LEARNED
from ...signals.csi import imperfect_csi
from .. import evaluation
from ..learned import find_precoder
from ..methods import flat
from ..options import METHODS, EvaluateOptions

DEFAULT_SNR_DB = (0.0, 10.0, 20.0)


class Setting(NamedTuple):
    """Channels to compare methods on: H (B, K, N), levels (B,), weights and estimate or None."""

    name: str
    users: int
    antennas: int
    snr_db: float | None
    H: Tensor
    power: Tensor
    noise_power: Tensor
    weights: Tensor | None
    estimate: Tensor | None


def evaluate(sources: Sequence[Path], options: EvaluateOptions) -> None:
    """Compare precoders on files or drawn channels; write the reports where asked."""
    set_threads()
    check_folder(options.output)
    precoders = choose(
        options.methods or METHODS, options.models, partial(find_precoder, options=options)
    )
    sizes = choose([LEARNED], options.models, lambda _, model: _bytes(model))
    settings = list(_from_files(sources, options) if sources else _drawn(options))
    rows: list[dict[str, Any]] = []
    channels: list[dict[str, Any]] = []
    shares: dict[str, np.ndarray] = {}
    with (
        told_of_compiling(quiet=options.quiet),
        Progress("compare", len(settings), unit="setting", quiet=options.quiet) as bar,
    ):
        for number, setting in enumerate(settings, 1):
            outcomes = evaluation.evaluate(
                setting.H,
                setting.power,
                setting.noise_power,
                precoders,
                weights=setting.weights,
                estimate=setting.estimate,
            )
            bar.update(number)
            if left_out := [name for name in precoders if name not in outcomes]:
                note = f"{setting.name}: {', '.join(left_out)} cannot serve these users: no row"
                console.say(note, quiet=options.quiet)
            if not outcomes:
                continue
            bound = None
            if options.bound and setting.weights is None:
                bound = evaluation.capacity_bound(setting.H, setting.power, setting.noise_power)
            place = {
                "channels": setting.name,
                "users": setting.users,
                "antennas": setting.antennas,
                "snr_db": setting.snr_db,
            }
            rows += [
                place | row | {"bytes": sizes.get(str(row["method"]))}
                for row in evaluation.summarise(outcomes, bound, setting.weights)
            ]
            channels += [
                place | row for row in evaluation.per_channel(outcomes, bound, setting.weights)
            ]
            shares = evaluation.user_rates(outcomes)
    if not rows:
        raise InputError("none of the methods can serve these users; choose others")
    publish(
        rows,
        {"channels": channels},
        options,
        definitions=evaluation.DEFINITIONS,
        draw=partial(_draw, rows=rows, shares=shares, last=settings[-1]),
    )


def _bytes(model: str) -> int:
    return locate(model, PRECODING_TASK).stat().st_size


def _from_files(sources: Sequence[Path], options: EvaluateOptions) -> Iterator[Setting]:
    for source in sources:
        stored = read_channels(
            source,
            power=1.0 if options.snr else None,
            noise_power=1.0 if options.snr else None,
        )
        truth = stored.H if stored.H_true is None else stored.H_true
        for snr in options.snr or (None,):
            power = stored.power if snr is None else stored.power * 10 ** (snr / 10)
            H, (power, noise), weights = flat(truth, (power, stored.noise_power), stored.weights)
            estimate = None
            if stored.H_true is not None:
                estimate = stored.H.reshape(H.shape)
            users, antennas = H.shape[-2:]
            yield Setting(
                source.stem,
                users,
                antennas,
                snr,
                H,
                power,
                noise,
                weights,
                _seen(H, estimate, options),
            )


def _drawn(options: EvaluateOptions) -> Iterator[Setting]:
    for users, antennas in options.sizes:
        H = draw_channels(options.channel, options.count, users, antennas, seed=options.seed)
        one = H.real.new_ones(len(H))
        for snr in options.snr or DEFAULT_SNR_DB:
            estimate = _seen(H, None, options)
            yield Setting(
                options.channel,
                users,
                antennas,
                snr,
                H,
                one * 10 ** (snr / 10),
                one,
                None,
                estimate,
            )


def _seen(H: Tensor, estimate: Tensor | None, options: EvaluateOptions) -> Tensor | None:
    """What the precoders see: None for the channels themselves."""
    if not options.csi_error:
        return estimate
    generator = torch.Generator().manual_seed(options.seed + 1)
    return imperfect_csi(H if estimate is None else estimate, options.csi_error, generator)


def _draw(
    folder: Path, rows: Sequence[Row], shares: Mapping[str, np.ndarray], last: Setting
) -> dict[str, Path]:
    """The pictures for which there is data."""
    from ...evaluation import pictures

    made = {"cdf": folder / "rate_cdf.png"}
    pictures.draw_distributions(made["cdf"], shares, f"rate of a user, bits/s/Hz ({_title(last)})")
    for column, label in (("snr_db", "SNR, dB"), ("users", "users")):
        same = "users" if column == "snr_db" else "snr_db"
        chosen = [
            row for row in rows if row[same] == getattr(last, same) and row["channels"] == last.name
        ]
        if len({row[column] for row in chosen}) < 2:
            continue
        lines: dict[str, tuple[list[float], list[float]]] = {}
        for row in chosen:
            for name, value in (
                (row["method"], row["sum_rate"]),
                ("bound", row["ratio_bound"] and row["sum_rate"] / row["ratio_bound"]),
            ):
                if value is not None and row[column] not in lines.setdefault(name, ([], []))[0]:
                    lines[name][0].append(row[column])
                    lines[name][1].append(value)
        made[column] = folder / f"rate_{'snr' if column == 'snr_db' else 'users'}.png"
        pictures.draw_curves(made[column], lines, label, "sum rate, bits/s/Hz")
    return made


def _title(setting: Setting) -> str:
    snr = "" if setting.snr_db is None else f", {setting.snr_db:g} dB"
    return f"{setting.name}, {setting.users} users, {setting.antennas} antennas{snr}"
