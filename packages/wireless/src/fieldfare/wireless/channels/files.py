# SPDX-License-Identifier: Apache-2.0
"""Channels and cell-free networks in npz and MATLAB files, checked on the way in.

A file of channels holds
    H            (K, N), (B, K, N) or (B, F, K, N) complex: B channels, F tones, K users, N
                 antennas; row k as used in y_k = H[k] W s; or what `layouts` reads
    noise_power  positive; a number, of every channel (shape of H's leading dimensions), or of
                 every user (..., K)
    power        positive, total transmit power; a number, or of every channel
    weights      optional, of the users, at least 0; broadcastable to (..., K)
    past_rate    optional, rate of every user so far, at least 0, as weights
    H_true       optional, shape of H: the channel of which H is the estimate

and a file of cell-free networks
    beta, gamma  (K, L) or (B, K, L): gain and mean square of its estimate, over the noise, or in
                 the unit of noise_power
    noise_power  optional; a number, of every network (B), or of every user (..., K)
    power        positive, limit of every access point; a number or broadcastable to (..., L)
    antennas     positive whole number, of every access point, likewise
    serving      optional, (..., K, L) bool: who serves whom; all serve all without it
    pilots       optional, (..., K) whole numbers: users with equal numbers share a pilot

Power and noise share one unit. Pickles are never loaded, and arrays of other names never read.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fieldfare.common.errors import InputError

from ..signals.cell_free import CellFree, cell_free
from . import checks
from .arrays import ArrayFile, open_arrays, write_arrays
from .layouts import Layout, find_channel

CHANNEL_NAMES = ("H", "noise_power", "power", "weights", "H_true", "past_rate")
NETWORK_NAMES = ("beta", "gamma", "noise_power", "power", "antennas", "serving", "pilots")

LEAST_SNR = 1e-6
"""What all access points together give the best user at least: below it a unit is wrong."""


class ChannelFile(NamedTuple):
    """What a file of channels holds.

    H and H_true are complex64 or complex128, the others real of the same precision; noise_power
    and power broadcast over H's leading dimensions. Noise that differs from user to user is in H:
    its rows are over the root of their noise then, and noise_power is 1. `symbols` of the F are
    Sionna's OFDM symbols, else it is None; nothing else of the file's axes is lost.
    """

    H: Tensor
    noise_power: Tensor
    power: Tensor
    weights: Tensor | None = None
    H_true: Tensor | None = None
    past_rate: Tensor | None = None
    symbols: int | None = None


def read_channels(
    path: Path,
    *,
    noise_power: float | None = None,
    power: float | None = None,
    several: bool = False,
) -> ChannelFile:
    """Read channels; a noise_power or power given here replaces the file's.

    With `several`, H and H_true are (..., K, M, N), M antennas a user.

    Raises:
        InputError: no such file; not one of plain arrays; H missing, of another shape or type,
            with NaN or infinity; noise or power missing or not positive; a name mistyped.
    """
    file = _opened(path, {"noise_power": noise_power, "power": power})
    found = find_channel(file, several=several)
    checks.check_names(file, [name for name in CHANNEL_NAMES if found is None or name != "H"])
    found = found or Layout("H", checks.present(file, "H"))
    H = _channel(path, found.name, found.H, several=several)
    truth = None
    if "H_true" in file:
        given = file["H_true"]
        given = np.expand_dims(given, -2) if several and given.ndim < 5 else given
        truth = _channel(path, "H_true", given, several=several)
        if truth.shape != H.shape:
            raise InputError(
                f"{path}: H_true has shape {tuple(truth.shape)} but H {tuple(H.shape)};"
                " give both the same"
            )
    leading, real = H.shape[: -3 if several else -2], H.real.dtype
    users = H.shape[len(leading)]
    noise = _noise(file, leading, users, real)
    if noise.ndim > len(leading):
        root = noise.double().sqrt().unsqueeze(-1)
        root = root.unsqueeze(-1) if several else root
        H, truth = (H / root).to(H.dtype), None if truth is None else (truth / root).to(H.dtype)
        noise = torch.ones((), dtype=real)
    limit = checks.positive(file, "power", leading, real)
    weights, past = (
        checks.positive(file, name, (*leading, users), real, zero=True) if name in file else None
        for name in ("weights", "past_rate")
    )
    return ChannelFile(H, noise, limit, weights, truth, past, found.symbols)


def read_network(
    path: Path, *, power: float | None = None, antennas: int | None = None
) -> CellFree:
    """Read cell-free networks; a power or antennas given here replaces the file's.

    Returns:
        Tensors of the precision of beta, over the noise; antennas 1 where neither says. Pairs
        without gain are not served.

    Raises:
        InputError: as `read_channels`, or no access point serves some user that has gains.
    """
    file = _opened(path, {"power": power, "antennas": antennas})
    checks.check_names(file, NETWORK_NAMES)
    beta, gamma = (_gains(file, name) for name in ("beta", "gamma"))
    if gamma.shape != beta.shape:
        raise InputError(
            f"{path}: gamma has shape {gamma.shape} but beta {beta.shape}; give both the same"
        )
    if (gamma > beta * (1 + 1e-5)).any():
        raise InputError(f"{path}: gamma exceeds beta; an estimate cannot be stronger than truth")
    real = torch.float32 if beta.dtype.itemsize <= 4 else torch.float64
    beta, gamma = beta.astype(np.float64), gamma.astype(np.float64)
    if "noise_power" in file:
        noise = _noise(file, beta.shape[:-2], beta.shape[-2], torch.float64).numpy()
        noise = noise[..., None] if noise.ndim == beta.ndim - 1 else noise[..., None, None]
        beta, gamma = beta / noise, gamma / noise
    if "antennas" not in file:
        file.replace("antennas", 1)
    aps = beta.shape[:-2] + beta.shape[-1:]
    limit = checks.positive(file, "power", aps, real)
    count = checks.positive(file, "antennas", aps, real)
    if bool((count != count.round()).any()):
        raise InputError(f"{path}: antennas must be whole numbers")
    strongest = (beta * (limit.numpy()[..., None, :] if limit.ndim else float(limit))).sum(-1)
    if strongest.max() < LEAST_SNR:
        raise InputError(
            f"{path}: beta times power is {strongest.max():.1g} at best; divide the gains by the"
            " noise, or add noise_power"
        )
    serving = torch.from_numpy((beta > 0) & (gamma > 0))
    if "serving" in file:
        serving = serving & checks.whole(file, "serving", beta.shape, "b", "true or false")
    pilots = None
    if "pilots" in file:
        pilots = checks.whole(file, "pilots", beta.shape[:-1], "iu", "whole numbers")
    b, g = (torch.from_numpy(part).to(real) for part in (beta, gamma))
    try:
        return cell_free(b, g, limit, count, serving, pilots)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def check_name(path: Path) -> None:
    """Raise InputError unless an output is named *.npz."""
    if path.suffix != ".npz":
        raise InputError(f"{path}: cannot be written; give a name in .npz")


def write_channels(path: Path, channels: ChannelFile) -> None:
    """Write what `read_channels` reads."""
    arrays = channels._asdict()
    del arrays["symbols"]  # H has our axes
    write_arrays(path, arrays)


def write_network(path: Path, network: CellFree) -> None:
    """Write what `read_network` reads."""
    write_arrays(path, network._asdict())


def _opened(path: Path, given: dict[str, float | None]) -> ArrayFile:
    file = open_arrays(path)
    for name, value in given.items():
        if value is not None:
            file.replace(name, value)
    return file


def _channel(path: Path, name: str, array: np.ndarray, *, several: bool = False) -> Tensor:
    if array.dtype.kind != "c":
        raise InputError(f"{path}: {name} is {array.dtype}; make it complex64 or complex128")
    if not 2 <= array.ndim - several <= 4 or 0 in array.shape:
        raise InputError(
            f"{path}: {name} has shape {array.shape}; make it (K, N), (B, K, N) or (B, F, K, N),"
            " or Sionna's seven axes; not empty"
        )
    checks.check_finite(path, name, array)
    dtype = np.complex64 if array.dtype.itemsize <= 8 else np.complex128
    channel = torch.from_numpy(np.array(array, dtype=dtype, order="C"))
    power = channel.abs().square().sum(-1)
    silent = np.count_nonzero(array, axis=-1) == 0  # a blocked user, or an antenna of one
    outside = ~(((power > 0) & power.isfinite()).numpy() | silent)
    if outside.any():
        raise InputError(
            f"{path}: {name}{checks.first(outside)} squared leaves the range of {array.dtype};"
            f" scale {name} and noise_power alike"
        )
    return channel


def _noise(file: ArrayFile, leading: tuple[int, ...], users: int, real: torch.dtype) -> Tensor:
    """noise_power over the leading dimensions, or with one axis more where it is of users."""
    noise = checks.levels(file, "noise_power")
    if not checks.noise_per_user(file, noise, leading, users):
        return checks.positive(file, "noise_power", leading, real)
    found = checks.positive(file, "noise_power", (*leading, users), real)
    return found.reshape((1,) * (len(leading) + 1 - found.ndim) + found.shape)


def _gains(file: ArrayFile, name: str) -> np.ndarray:
    array = checks.present(file, name)
    if array.dtype.kind != "f":
        raise InputError(f"{file.path}: {name} is {array.dtype}; make it float32 or float64")
    if not 2 <= array.ndim <= 3 or 0 in array.shape:
        raise InputError(
            f"{file.path}: {name} has shape {array.shape}; make it (B, K, L), not empty"
        )
    checks.check_finite(file.path, name, array)
    if (array < 0).any():
        raise InputError(f"{file.path}: {name}{checks.first(array < 0)} is negative; gains are not")
    return array
