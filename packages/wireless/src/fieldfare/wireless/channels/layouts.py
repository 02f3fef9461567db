# SPDX-License-Identifier: Apache-2.0
"""Channels as other tools lay them out, turned into H (B, F, K, N).

Sionna: h [batch, receiver, its antenna, transmitter, its antenna, OFDM symbol, subcarrier].
DeepMIMO: channel [user, its antenna, base station's antenna, subcarrier], one base station's users;
or the structures that it saves (`structures`).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from fieldfare.common.errors import InputError

from .arrays import ArrayFile
from .structures import deepmimo_channel

DEEPMIMO = ("channel", "channels")
NAMES = ("H", "h", "h_freq", *DEEPMIMO)
"""Under which a channel is looked for, in this order."""


class Layout(NamedTuple):
    """The channel's name in the file, its content, and the OFDM symbols in F, if it is Sionna's.

    H is (..., K, N), or (..., K, M, N) where users with M antennas were asked for.
    """

    name: str
    H: np.ndarray
    symbols: int | None = None


def find_channel(file: ArrayFile, *, several: bool = False) -> Layout | None:
    """The channel of a file; None if there is none.

    Every OFDM symbol and every subcarrier is a channel: Sionna's become F, in this order.

    Args:
        file: whose arrays are looked through.
        several: keep an axis for the antennas of a user; 2 to 4 axes are of one antenna a user.

    Raises:
        InputError: several antennas a user where one is asked for, several base stations, or
            impulse responses.
    """
    name = next((name for name in NAMES if name in file), None)
    found = _from_structure(file) if name is None else _named(file, name)
    if found is None:
        return None
    H = found.H
    if several:
        return found
    if H.shape[-2] > 1:
        raise InputError(
            f"{file.path}: {found.name} has {H.shape[-2]} antennas a user; say how many streams"
            " each gets (infer --streams), keep one, or make every stream a user"
            " (signals.mimo.effective_rows)"
        )
    return found._replace(H=H[..., 0, :])


def _named(file: ArrayFile, name: str) -> Layout:
    array = file[name]
    if array.ndim == 7 and not file.matlab:
        return _from_sionna(file.path, name, array, "tau" in file)
    if name in DEEPMIMO and array.ndim == 4:
        return Layout(name, _from_deepmimo(file, name))
    return Layout(name, array if array.ndim == 5 else np.expand_dims(array, -2))


def _from_sionna(path: Path, name: str, h: np.ndarray, impulses: bool) -> Layout:
    batch, receivers, receiving, transmitters, transmitting, symbols, tones = h.shape
    if impulses:
        raise InputError(
            f"{path}: {name} are paths with delays tau; make them a frequency response"
            " (Sionna's cir_to_ofdm_channel)"
        )
    if receivers == 1 and transmitting == 1 and transmitters > 1:
        raise InputError(
            f"{path}: {name} is an uplink ({transmitters} transmitters of one antenna);"
            " swap both ends: h.transpose(0, 3, 4, 1, 2, 5, 6)"
        )
    if transmitters > 1:
        raise InputError(
            f"{path}: {name} has {transmitters} transmitters; keep one: h[:, :, :, :1]"
        )
    found = h[:, :, :, 0].transpose(0, 4, 5, 1, 2, 3)
    H = found.reshape(batch, symbols * tones, receivers, receiving, transmitting)
    return Layout(name, H, symbols)


def _from_deepmimo(file: ArrayFile, name: str) -> np.ndarray:
    channel = file[name]
    if file.matlab:  # (its antenna, tone, user, base station's): undo what reading did
        channel = channel.transpose(2, 3, 1, 0)
    return _users_of_tones(channel)


def _from_structure(file: ArrayFile) -> Layout | None:
    for name, tree in file.structures():
        channel = deepmimo_channel(file.path, name, tree)
        if channel is not None:
            return Layout(name, _users_of_tones(channel))
    return None


def _users_of_tones(channel: np.ndarray) -> np.ndarray:
    """[user, its antenna, base station's antenna, subcarrier] to (F, K, M, N)."""
    return channel.transpose(3, 0, 1, 2)
