# SPDX-License-Identifier: Apache-2.0
"""Structures and cells of MATLAB files as dicts and lists of arrays, and DeepMIMO's in them.

DeepMIMO saves a cell of base stations, each a structure with `user`, a cell or an array of
structures with `channel` [its antenna, base station's antenna, subcarrier]; from Python, a dict of
the same with one `channel` [user, its antenna, base station's antenna, subcarrier].
"""

from pathlib import Path
from typing import Any

import numpy as np

from fieldfare.common.errors import InputError

Tree = Any
"""An array, or a dict or a list of trees."""


def tree_of(value: Any) -> Tree:
    """What scipy reads of MATLAB 5 to 7: structures as dicts, cells and their arrays as lists."""
    if not isinstance(value, np.ndarray | np.void):
        return np.asarray(value)
    if value.dtype.names is not None:
        found = [
            {name: tree_of(one[name]) for name in value.dtype.names}
            for one in np.atleast_1d(value).ravel()
        ]
        return found[0] if len(found) == 1 else found
    if value.dtype == object:
        return [tree_of(one) for one in np.atleast_1d(value).ravel()]
    return value


def tree_of_hdf5(node: Any, file: Any) -> Tree:
    """What h5py reads of MATLAB 7.3; arrays have MATLAB's order of axes again."""
    if hasattr(node, "keys"):
        return {name: tree_of_hdf5(node[name], file) for name in node}
    array = np.asarray(node[()])
    if array.dtype == object:
        return [tree_of_hdf5(file[reference], file) for reference in array.ravel()]
    if array.dtype.names == ("real", "imag"):
        array = array["real"] + 1j * array["imag"]
    return array.transpose()


def deepmimo_channel(path: Path, name: str, tree: Tree) -> np.ndarray | None:
    """The channels of the one base station of a DeepMIMO dataset; None if it is none.

    Returns:
        [user, its antenna, base station's antenna, subcarrier].

    Raises:
        InputError: several base stations, or users of different shapes.
    """
    stations = tree if isinstance(tree, list) else [tree]
    found = [users for users in map(_users, stations) if users]
    if not found:
        return None
    if len(found) > 1:
        raise InputError(f"{path}: {name} has {len(found)} base stations; save one, {name}{{1}}")
    users = found[0]
    if len(users) == 1 and users[0].ndim == 4:
        return users[0]
    users = [channel.reshape(*channel.shape, *(1,) * (3 - channel.ndim)) for channel in users]
    if len({channel.shape for channel in users}) > 1:
        raise InputError(f"{path}: the users of {name} have channels of different shapes")
    return np.stack(users)


def _users(station: Tree) -> list[np.ndarray]:
    """Each user's channel, or one array of all users'."""
    if not isinstance(station, dict):
        return []
    users = station.get("user", station)
    if isinstance(users, dict):
        channels = users.get("channel", [])
        channels = channels if isinstance(channels, list) else [channels]
    else:
        channels = [user["channel"] for user in users if isinstance(user, dict)]
    return [channel for channel in channels if isinstance(channel, np.ndarray)]
