# SPDX-License-Identifier: Apache-2.0
"""What arrays of channels and networks have to be, each refused in one line that names the file."""

import difflib
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fieldfare.common.errors import InputError

from .arrays import ArrayFile


def check_names(file: ArrayFile, known: Collection[str]) -> None:
    """Refuse a name that is nearly one of `known` which the file lacks.

    Other names may be anything: they are not read.
    """
    missing = {name.lower(): name for name in known if name not in file}
    for name in file:
        if name in known:
            continue
        near = difflib.get_close_matches(name.lower(), missing, n=1)
        if near:
            raise InputError(
                f"{file.path}: {name} is no name of ours; is it {missing[near[0]]}?"
                " Rename or remove it"
            )


def present(file: ArrayFile, name: str) -> np.ndarray:
    """The array of that name; refused where there is none."""
    if name not in file:
        found = ", ".join(sorted(file)) or "nothing"
        raise InputError(f"{file.path}: no {name} (it holds {found}); add it")
    return file[name]


def levels(file: ArrayFile, name: str) -> np.ndarray:
    """Real finite numbers; MATLAB's vectors without axes of length 1, its channels first."""
    array = present(file, name)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{file.path}: {name} is {array.dtype}; make it a real number")
    if file.matlab and array.ndim == 2:
        array = array.squeeze() if 1 in array.shape else array.T
    check_finite(file.path, name, array)
    return array


def positive(
    file: ArrayFile, name: str, shape: tuple[int, ...], dtype: torch.dtype, *, zero: bool = False
) -> Tensor:
    """Levels that are above 0 in this precision (or 0, where `zero`) and fit a shape."""
    array = levels(file, name)
    if array.size == 1:
        array = array.reshape(())
    check_broadcast(file.path, name, array, shape)
    values = torch.from_numpy(np.array(array, dtype=np.float64)).to(dtype)
    above = values >= 0 if zero else values > 0
    if not bool((above & values.isfinite()).all()):
        must = "not be negative" if zero else "be positive"
        raise InputError(
            f"{file.path}: {name} is {array.min():g}; it must {must} and in the range of {dtype}"
        )
    return values


def whole(file: ArrayFile, name: str, shape: tuple[int, ...], kinds: str, wanted: str) -> Tensor:
    """An array of truth values (kinds "b") or of whole numbers ("iu") of a shape."""
    array = file[name]
    if file.matlab and array.ndim == 2 and len(shape) < 2:
        array = array.squeeze()
    if file.matlab and array.dtype.kind == "f" and (array == array.round()).all():
        array = array.astype(np.int64)
    if kinds == "b" and file.matlab and set(np.unique(array)) <= {0, 1}:
        array = array.astype(bool)
    if array.dtype.kind not in kinds:
        raise InputError(f"{file.path}: {name} is {array.dtype}; make it {wanted}")
    check_broadcast(file.path, name, array, shape)
    spread = np.broadcast_to(array, shape)
    return torch.from_numpy(np.array(spread, dtype=bool if kinds == "b" else np.int64))


def noise_per_user(file: ArrayFile, noise: np.ndarray, leading: Sequence[int], users: int) -> bool:
    """Whether the noise is of users, shape (..., K), and not of channels, shape (...).

    Raises:
        InputError: it fits neither, or both and the numbers differ.
    """
    channels, each = tuple(leading), (*leading, users)
    if noise.size == 1 or (noise == noise.flat[0]).all():
        fits = _fits(noise, channels) or noise.size == 1
        if not fits and not _fits(noise, each):
            check_broadcast(file.path, "noise_power", noise, channels)
        return not fits
    of_channel, of_user = _fits(noise, channels), _fits(noise, each)
    if of_channel and of_user:
        one, other = (*channels, 1), (*(1 for _ in channels), users)
        raise InputError(
            f"{file.path}: noise_power {noise.shape} may be of channels or of users; make it"
            f" {one} for channels or {other} for users"
        )
    if not of_channel and not of_user:
        raise InputError(
            f"{file.path}: noise_power has shape {noise.shape}; it must fit {channels} (channels),"
            f" {each} (users) or be one number"
        )
    return of_user


def check_finite(path: Path, name: str, array: np.ndarray) -> None:
    """Refuse NaN and infinity."""
    wrong = ~np.isfinite(array)
    if wrong.any():
        raise InputError(f"{path}: {name}{first(wrong)} is not finite; remove NaN and infinity")


def check_broadcast(path: Path, name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    """Refuse what cannot be spread over a shape."""
    if not _fits(array, shape):
        raise InputError(
            f"{path}: {name} has shape {array.shape}; it must fit {tuple(shape)} or be one number"
        )


def first(wrong: np.ndarray) -> list[int]:
    """Index of the first True."""
    return [int(index) for index in np.argwhere(wrong)[0]]


def _fits(array: np.ndarray, shape: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(array.shape, shape) == tuple(shape)
    except ValueError:
        return False
