# SPDX-License-Identifier: Apache-2.0
"""Channels and cell-free networks in npz files, checked on the way in.

A file of channels holds
    H            (K, N), (B, K, N) or (B, F, K, N) complex: B channels, F tones, K users, N
                 antennas; row k as used in y_k = H[k] W s
    noise_power  positive, of every user; a number or broadcastable to H's leading dimensions
    power        positive, total transmit power, likewise
    weights      optional, positive, of the users; broadcastable to (..., K)
    H_true       optional, shape of H: the channel of which H is the estimate

and a file of cell-free networks
    beta, gamma  (K, L) or (B, K, L): gain and mean square of its estimate, over the noise
    power        positive, limit of every access point; a number or broadcastable to (..., L)
    antennas     positive whole number, of every access point, likewise
    serving      optional, (..., K, L) bool: who serves whom; all serve all without it
    pilots       optional, (..., K) whole numbers: users with equal numbers share a pilot

Power and noise share one unit. Pickles are never loaded.
"""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fieldfare.common.errors import InputError
from fieldfare.common.files import atomic_path

from ..signals.cell_free import CellFree, cell_free

Arrays = dict[str, np.ndarray]


class ChannelFile(NamedTuple):
    """What a file of channels holds.

    H and H_true are complex64 or complex128, the others real of the same precision; noise_power
    and power broadcast over H's leading dimensions.
    """

    H: Tensor
    noise_power: Tensor
    power: Tensor
    weights: Tensor | None = None
    H_true: Tensor | None = None


def read_channels(
    path: Path, *, noise_power: float | None = None, power: float | None = None
) -> ChannelFile:
    """Read channels; a noise_power or power given here replaces the file's.

    Raises:
        InputError: no such file; not an npz of plain arrays; H missing, of another shape or type,
            with NaN, infinity or a user without channel; noise or power missing or not positive.
    """
    arrays = read_arrays(path)
    H = _channel(path, "H", arrays)
    real = H.real.dtype
    leading = H.shape[:-2]
    if noise_power is not None:
        arrays["noise_power"] = np.asarray(noise_power)
    if power is not None:
        arrays["power"] = np.asarray(power)
    levels = {
        name: _positive(path, name, arrays, leading, real) for name in ("noise_power", "power")
    }
    weights = H_true = None
    if "weights" in arrays:
        weights = _positive(path, "weights", arrays, H.shape[:-1], real)
    if "H_true" in arrays:
        H_true = _channel(path, "H_true", arrays)
        if H_true.shape != H.shape:
            raise InputError(
                f"{path}: H_true has shape {tuple(H_true.shape)} but H {tuple(H.shape)};"
                " give both the same"
            )
    return ChannelFile(H, levels["noise_power"], levels["power"], weights, H_true)


def read_network(
    path: Path, *, power: float | None = None, antennas: int | None = None
) -> CellFree:
    """Read cell-free networks; a power or antennas given here replaces the file's.

    Returns:
        Tensors of the precision of beta; antennas 1 where neither says.

    Raises:
        InputError: as `read_channels`, or no access point serves some user.
    """
    arrays = read_arrays(path)
    if power is not None:
        arrays["power"] = np.asarray(power)
    if antennas is not None:
        arrays["antennas"] = np.asarray(antennas)
    arrays.setdefault("antennas", np.asarray(1))
    beta = _gains(path, "beta", arrays)
    gamma = _gains(path, "gamma", arrays).to(beta.dtype)
    if gamma.shape != beta.shape:
        raise InputError(
            f"{path}: gamma has shape {tuple(gamma.shape)} but beta {tuple(beta.shape)};"
            " give both the same"
        )
    if bool((gamma > beta * (1 + 1e-5)).any()):
        raise InputError(f"{path}: gamma exceeds beta; an estimate cannot be stronger than truth")
    aps = beta.shape[:-2] + beta.shape[-1:]
    limit = _positive(path, "power", arrays, aps, beta.dtype)
    count = _positive(path, "antennas", arrays, aps, beta.dtype)
    if bool((count != count.round()).any()):
        raise InputError(f"{path}: antennas must be whole numbers")
    serving = pilots = None
    if "serving" in arrays:
        serving = _typed(path, "serving", arrays, "b", beta.shape, "true or false")
    if "pilots" in arrays:
        pilots = _typed(path, "pilots", arrays, "iu", beta.shape[:-1], "whole numbers").long()
    try:
        return cell_free(beta, gamma, limit, count, serving, pilots)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def check_name(path: Path) -> None:
    """Raise InputError unless an output is named *.npz."""
    if path.suffix != ".npz":
        raise InputError(f"{path}: cannot be written; give a name in .npz")


def write_channels(path: Path, channels: ChannelFile) -> None:
    """Write what `read_channels` reads."""
    write_arrays(path, channels._asdict())


def write_network(path: Path, network: CellFree) -> None:
    """Write what `read_network` reads."""
    write_arrays(path, network._asdict())


def read_arrays(path: Path) -> Arrays:
    """All arrays of an npz file, none of them a pickle.

    Raises:
        InputError: no such file, not an npz, damaged, or with object arrays.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):  # a bare pickle or npy would go through np.load as well
        raise InputError(f"{path}: not an npz file; write it with numpy.savez")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name]) for name in file.files}
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise InputError(
                f"{path}: holds Python objects, which are never loaded; save plain arrays"
            ) from None
        raise InputError(f"{path}: damaged npz file; write it again") from None
    except MemoryError:
        raise InputError(f"{path}: its arrays do not fit into memory; split the file") from None
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, RuntimeError):
        raise InputError(f"{path}: damaged npz file; write it again") from None
    return arrays


def write_arrays(path: Path, arrays: Mapping[str, Tensor | np.ndarray | float | None]) -> None:
    """Write an npz file atomically; entries that are None are left out."""
    plain: dict[str, Any] = {
        name: array.detach().cpu().contiguous().numpy() if isinstance(array, Tensor) else array
        for name, array in arrays.items()
        if array is not None
    }
    with atomic_path(path) as temporary, open(temporary, "wb") as file:  # savez would add .npz
        np.savez(file, **plain)


def _channel(path: Path, name: str, arrays: Arrays) -> Tensor:
    array = _present(path, name, arrays)
    if array.dtype.kind != "c":
        raise InputError(f"{path}: {name} is {array.dtype}; make it complex64 or complex128")
    if not 2 <= array.ndim <= 4 or 0 in array.shape:
        raise InputError(
            f"{path}: {name} has shape {array.shape}; make it (B, K, N) or (B, F, K, N), not empty"
        )
    _check_finite(path, name, array)
    silent = np.count_nonzero(array, axis=-1) == 0
    if silent.any():
        raise InputError(
            f"{path}: {name}{_first(silent)} is all zeros; leave out users without a channel"
        )
    channel = _tensor(array, np.complex64 if array.dtype.itemsize <= 8 else np.complex128)
    power = channel.abs().square().sum(-1)
    outside = ~((power > 0) & power.isfinite()).numpy()
    if outside.any():
        raise InputError(
            f"{path}: {name}{_first(outside)} squared leaves the range of {array.dtype};"
            f" scale {name} and noise_power alike"
        )
    return channel


def _gains(path: Path, name: str, arrays: Arrays) -> Tensor:
    array = _present(path, name, arrays)
    if array.dtype.kind != "f":
        raise InputError(f"{path}: {name} is {array.dtype}; make it float32 or float64")
    if not 2 <= array.ndim <= 3 or 0 in array.shape:
        raise InputError(f"{path}: {name} has shape {array.shape}; make it (B, K, L), not empty")
    _check_finite(path, name, array)
    if not (array > 0).all():
        raise InputError(f"{path}: {name} must be positive everywhere; use serving to switch off")
    return _tensor(array, np.float32 if array.dtype.itemsize <= 4 else np.float64)


def _positive(
    path: Path, name: str, arrays: Arrays, shape: tuple[int, ...], dtype: torch.dtype
) -> Tensor:
    array = _present(path, name, arrays)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{path}: {name} is {array.dtype}; make it a real number")
    _check_broadcast(path, name, array, shape)
    _check_finite(path, name, array)
    values = _tensor(array, np.float64).to(dtype)
    if not bool(((values > 0) & values.isfinite()).all()):
        raise InputError(
            f"{path}: {name} is {array.min():g}; it must be positive and in the range of {dtype}"
        )
    return values


def _typed(
    path: Path, name: str, arrays: Arrays, kinds: str, shape: tuple[int, ...], wanted: str
) -> Tensor:
    array = arrays[name]
    if array.dtype.kind not in kinds:
        raise InputError(f"{path}: {name} is {array.dtype}; make it {wanted}")
    _check_broadcast(path, name, array, shape)
    return _tensor(np.broadcast_to(array, shape), bool if kinds == "b" else np.int64)


def _present(path: Path, name: str, arrays: Arrays) -> np.ndarray:
    if name not in arrays:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise InputError(f"{path}: no {name} (it holds {found}); add it")
    return arrays[name]


def _check_finite(path: Path, name: str, array: np.ndarray) -> None:
    wrong = ~np.isfinite(array)
    if wrong.any():
        raise InputError(f"{path}: {name}{_first(wrong)} is not finite; remove NaN and infinity")


def _first(wrong: np.ndarray) -> list[int]:
    """Index of the first True."""
    return [int(index) for index in np.argwhere(wrong)[0]]


def _check_broadcast(path: Path, name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    try:
        fits = np.broadcast_shapes(array.shape, shape) == tuple(shape)
    except ValueError:
        fits = False
    if not fits:
        raise InputError(
            f"{path}: {name} has shape {array.shape}; it must fit {tuple(shape)} or be one number"
        )


def _tensor(array: np.ndarray, dtype: type) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=dtype, order="C"))
