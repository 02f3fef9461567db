# SPDX-License-Identifier: Apache-2.0
"""wl-precode infer, eval and train."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fieldfare.common import console, files
from fieldfare.common.errors import InputError
from fieldfare.common.progress import Progress
from fieldfare.common.runtime import set_threads

from ..channels import files as channel_files
from ..channels.draw import draw_channels
from ..evaluation import pictures
from ..evaluation.tables import write_reports
from ..signals.csi import imperfect_csi
from ..signals.linear import limit_antenna_power
from ..signals.rates import rate
from . import evaluation
from .methods import BASELINES, LEARNED, Precoder, baseline, in_batches

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


def infer(source: Path, output: Path, options: Mapping[str, Any]) -> None:
    """Read channels, precode, write W and rates."""
    set_threads()
    if output.suffix != ".npz":
        raise InputError(f"{output}: cannot be written; give a name in .npz")
    files.check_output(output, overwrite=options["overwrite"])
    channels = channel_files.read_channels(
        source, noise_power=options["noise_power"], power=options["power"]
    )
    method = options["method"]
    precoder = _precoders([method], [options["model"]], options)[method]
    try:
        found = precoder(channels.H, channels.power, channels.noise_power, channels.weights)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    W = found.W
    if options["antenna_power"]:
        W = limit_antenna_power(W, options["antenna_power"])
    truth = channels.H if channels.H_true is None else channels.H_true
    rates = rate(truth, W, channels.noise_power)
    channel_files.write_arrays(output, {"W": W, "rate": rates, "guarded": found.guarded})
    guarded = None if found.guarded is None else int(found.guarded.sum())
    result = {
        "output": output,
        "method": method,
        "channels": rates[..., 0].numel(),
        "users": rates.shape[-1],
        "antennas": found.W.shape[-2],
        "mean_sum_rate": float(rates.sum(-1).mean()),
        "guarded": guarded,
    }
    if guarded:
        console.say(f"guard: RZF was the better on {guarded} of {result['channels']} channels")
    text = f"mean sum rate {result['mean_sum_rate']:.4g} bits/s/Hz\n{output}"
    console.emit(result, as_json=options["as_json"], text=text)


def evaluate(sources: Sequence[Path], options: Mapping[str, Any]) -> None:
    """Compare precoders on files or drawn channels; write the reports where asked."""
    set_threads()
    output = options["output"]
    if output is not None and output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; name a folder for the reports")
    names = list(dict.fromkeys(options["methods"])) or [*BASELINES, LEARNED]
    precoders = _precoders(names, options["model"], options)
    settings = list(_from_files(sources, options) if sources else _drawn(options))
    rows: list[dict[str, Any]] = []
    channels: list[dict[str, Any]] = []
    shares: dict[str, Any] = {}
    with Progress("compare", len(settings), unit="setting", quiet=options["quiet"]) as bar:
        for number, setting in enumerate(settings, 1):
            possible = {
                name: precoder
                for name, precoder in precoders.items()
                if not (name.startswith("zf") and setting.users > setting.antennas)
            }
            outcomes = evaluation.evaluate(
                setting.H,
                setting.power,
                setting.noise_power,
                possible,
                weights=setting.weights,
                estimate=setting.estimate,
            )
            bound = None
            if options["bound"] and setting.weights is None:
                bound = evaluation.capacity_bound(setting.H, setting.power, setting.noise_power)
            place = {
                "channels": setting.name,
                "users": setting.users,
                "antennas": setting.antennas,
                "snr_db": setting.snr_db,
            }
            rows += [place | row for row in evaluation.summarise(outcomes, bound, setting.weights)]
            channels += [
                place | row for row in evaluation.per_channel(outcomes, bound, setting.weights)
            ]
            shares = evaluation.user_rates(outcomes)
            bar.update(number)
    made: dict[str, Path] = {}
    if output is not None:
        made = write_reports(
            output, rows, {"channels": channels}, definitions=evaluation.DEFINITIONS
        )
        made |= _draw(output, rows, shares, settings[-1])
    lines = [console.table(rows), ""]
    lines += [f"{name}: {text}" for name, text in evaluation.DEFINITIONS.items()]
    lines += [str(path) for path in made.values()]
    result = {"rows": rows, "definitions": evaluation.DEFINITIONS, "written": made}
    console.emit(result, as_json=options["as_json"], text="\n".join(lines))


def _precoders(
    methods: Sequence[str], models: Sequence[str], options: Mapping[str, Any]
) -> dict[str, Precoder]:
    found: dict[str, Precoder] = {}
    for name in methods:
        if name != LEARNED:
            found[name] = in_batches(baseline(name), options["batch"])
            continue
        from .learned import load_precoder

        for model in models:
            learned = load_precoder(
                model,
                guard=options["guard"],
                solver=options["solver"],
                refinement=options["refine"],
                device=options["device"],
                precision=options["precision"],
            )
            label = LEARNED if len(models) == 1 else f"{LEARNED}:{Path(model).stem}"
            found[label] = in_batches(learned, options["batch"])
    return found


def _from_files(sources: Sequence[Path], options: Mapping[str, Any]) -> Iterator[Setting]:
    for source in sources:
        stored = channel_files.read_channels(
            source,
            power=1.0 if options["snr"] else None,
            noise_power=1.0 if options["snr"] else None,
        )
        truth = stored.H if stored.H_true is None else stored.H_true
        for snr in options["snr"] or (None,):
            power = stored.power if snr is None else stored.power * 10 ** (snr / 10)
            H, (power, noise), weights = evaluation.flat(
                truth, (power, stored.noise_power), stored.weights
            )
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


def _drawn(options: Mapping[str, Any]) -> Iterator[Setting]:
    for users, antennas in options["sizes"]:
        H = draw_channels(
            options["channel"], options["count"], users, antennas, seed=options["seed"]
        )
        one = H.real.new_ones(len(H))
        for snr in options["snr"] or DEFAULT_SNR_DB:
            estimate = _seen(H, None, options)
            yield Setting(
                options["channel"],
                users,
                antennas,
                snr,
                H,
                one * 10 ** (snr / 10),
                one,
                None,
                estimate,
            )


def _seen(H: Tensor, estimate: Tensor | None, options: Mapping[str, Any]) -> Tensor | None:
    """What the precoders see: None for the channels themselves."""
    if not options["csi_error"]:
        return estimate
    generator = torch.Generator().manual_seed(options["seed"] + 1)
    return imperfect_csi(H if estimate is None else estimate, options["csi_error"], generator)


def _draw(
    folder: Path, rows: Sequence[Mapping[str, Any]], shares: Mapping[str, Any], last: Setting
) -> dict[str, Path]:
    """The pictures for which there is data."""
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
