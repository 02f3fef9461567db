# SPDX-License-Identifier: Apache-2.0
"""Channels as other tools lay them out, turned into H (B, F, K, N).

Sionna: h [batch, receiver, its antenna, transmitter, its antenna, OFDM symbol, subcarrier].
DeepMIMO: channel [user, its antenna, base station's antenna, subcarrier], one base station's users;
or the structures that it saves (`structures`).
"""

from pathlib import Path

import numpy as np

from fieldfare.common.errors import InputError

from .arrays import ArrayFile
from .structures import deepmimo_channel

DEEPMIMO = ("channel", "channels")
NAMES = ("H", "h", "h_freq", *DEEPMIMO)
"""Under which a channel is looked for, in this order."""


def find_channel(file: ArrayFile) -> tuple[str, np.ndarray] | None:
    """The channel's name in the file and its content with axes (..., K, N); None if there is none.

    Every OFDM symbol and every subcarrier is a channel: Sionna's become F, in this order.

    Raises:
        InputError: several antennas a user, several base stations, or impulse responses.
    """
    name = next((name for name in NAMES if name in file), None)
    if name is None:
        return _from_structure(file)
    array = file[name]
    if array.ndim == 7 and not file.matlab:
        return name, _from_sionna(file.path, name, array, "tau" in file)
    if name in DEEPMIMO and array.ndim == 4:
        return name, _from_deepmimo(file, name)
    return name, array


def _from_sionna(path: Path, name: str, h: np.ndarray, impulses: bool) -> np.ndarray:
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
    _check_one_antenna(path, name, receiving)
    found = h[:, :, 0, 0].transpose(0, 3, 4, 1, 2)
    return found.reshape(batch, symbols * tones, receivers, transmitting)


def _from_deepmimo(file: ArrayFile, name: str) -> np.ndarray:
    channel = file[name]
    if file.matlab:  # (its antenna, tone, user, base station's): undo what reading did
        channel = channel.transpose(2, 3, 1, 0)
    return _users_of_tones(file.path, name, channel)


def _from_structure(file: ArrayFile) -> tuple[str, np.ndarray] | None:
    for name, tree in file.structures():
        channel = deepmimo_channel(file.path, name, tree)
        if channel is not None:
            return name, _users_of_tones(file.path, name, channel)
    return None


def _users_of_tones(path: Path, name: str, channel: np.ndarray) -> np.ndarray:
    """[user, its antenna, base station's antenna, subcarrier] to (F, K, N)."""
    _check_one_antenna(path, name, channel.shape[1])
    return channel[:, 0].transpose(2, 0, 1)


def _check_one_antenna(path: Path, name: str, antennas: int) -> None:
    if antennas > 1:
        raise InputError(
            f"{path}: {name} has {antennas} antennas a user; keep one, or make every stream a user"
            " (signals.mimo.effective_rows)"
        )
