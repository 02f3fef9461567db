# SPDX-License-Identifier: Apache-2.0
"""Named arrays in npz and MATLAB files; an array is read when it is asked for, and not before.

MATLAB's pages come last, H(:, :, f, b): arrays of three and more axes are turned so that they come
first, (b, f, :, :), as numpy has them. Pickles are never loaded.
"""

import contextlib
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fieldfare.common.errors import InputError
from fieldfare.common.files import atomic_path

from .matlab5 import Matlab5
from .structures import Tree, tree_of_hdf5

Arrays = dict[str, np.ndarray]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class ArrayFile(Mapping[str, np.ndarray]):
    """Arrays of a file by name.

    Args:
        path: for messages.
        readers: a function for each name.
        matlab: whether vectors are matrices of one row or column, and channels the last axis.
        structures: a function for each name of a structure or cell.
    """

    def __init__(
        self,
        path: Path,
        readers: Mapping[str, Callable[[], np.ndarray]],
        matlab: bool = False,
        structures: Mapping[str, Callable[[], Tree]] | None = None,
    ) -> None:
        self.path = path
        self.matlab = matlab
        self._structures = dict(structures or {})
        self._readers = dict(readers)
        self._kept: Arrays = {}

    def __getitem__(self, name: str) -> np.ndarray:
        """Read an array, once.

        Raises:
            InputError: damaged, with Python objects, or too large for the memory.
        """
        if name not in self._readers:
            raise KeyError(name)
        if name not in self._kept:
            with _reading(self.path):
                self._kept[name] = self._readers[name]()
        return self._kept[name]

    def __contains__(self, name: object) -> bool:  # Mapping's would read the array
        return name in self._readers

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)

    def structures(self) -> Iterator[tuple[str, Tree]]:
        """Structures and cells by name, each read when it is its turn."""
        for name, read in self._structures.items():
            with _reading(self.path):
                tree = read()
            yield name, tree

    def replace(self, name: str, array: Any) -> None:
        """Use this array instead of the file's."""
        given = np.asarray(array)
        self._readers[name] = lambda: given
        self._kept.pop(name, None)


def open_arrays(path: Path) -> ArrayFile:
    """The names of a file's arrays; nothing but the table of contents is read.

    Raises:
        InputError: no such file, neither npz nor MATLAB, or damaged.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if zipfile.is_zipfile(path):  # a bare pickle or npy would go through np.load as well
        return _open_npz(path)
    with path.open("rb") as file:
        start = file.read(520)
    if _HDF5 in (start[:8], start[512:]):
        return _open_hdf5(path)
    if start.startswith(b"MATLAB 5.0"):
        return _open_matlab(path)
    if start.startswith(b"\x93NUMPY") or start[:1] == b"\x80":
        raise InputError(
            f"{path}: not an npz or MATLAB file but one array, or Python objects (as DeepMIMO's"
            " dictionaries are), which are never loaded; save plain arrays: numpy.savez('h.npz',"
            " channel=dataset[0]['user']['channel'], noise_power=..., power=...)"
        )
    raise InputError(
        f"{path}: not an npz or MATLAB file; write it with numpy.savez, or save in MATLAB"
    )


def write_arrays(path: Path, arrays: Mapping[str, Tensor | np.ndarray | float | None]) -> None:
    """Write an npz file atomically; entries that are None are left out."""
    plain: dict[str, Any] = {
        name: array.detach().cpu().contiguous().numpy() if isinstance(array, Tensor) else array
        for name, array in arrays.items()
        if array is not None
    }
    with atomic_path(path) as temporary, open(temporary, "wb") as file:  # savez would add .npz
        np.savez(file, **plain)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever a damaged file makes its reader raise, as one line."""
    try:
        yield
    except InputError:
        raise
    except MemoryError:
        raise InputError(f"{path}: its arrays do not fit into memory; split the file") from None
    except Exception as error:  # readers of damaged files raise all there is
        if "allow_pickle" in str(error):
            raise InputError(
                f"{path}: holds Python objects, which are never loaded; save plain arrays"
            ) from None
        kind = "npz" if zipfile.is_zipfile(path) else "MATLAB"
        raise InputError(f"{path}: damaged {kind} file; write it again") from None


def _open_npz(path: Path) -> ArrayFile:
    with _reading(path), zipfile.ZipFile(path) as archive:
        members = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]

    def reader(entry: zipfile.ZipInfo) -> Callable[[], np.ndarray]:
        return lambda: _read_npy(path, entry)

    return ArrayFile(path, {entry.filename[:-4]: reader(entry) for entry in members})


def _read_npy(path: Path, entry: zipfile.ZipInfo) -> np.ndarray:
    """One member, after its header is held against what there is of it."""
    with zipfile.ZipFile(path) as archive:
        with archive.open(entry) as file:
            version = np.lib.format.read_magic(file)
            read = _HEADERS.get(version, np.lib.format.read_array_header_2_0)
            shape, _, dtype = read(file)
            if not dtype.hasobject and file.tell() + math.prod(shape) * dtype.itemsize > (
                entry.file_size
            ):
                raise ValueError("header claims more than there is")
        with archive.open(entry) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    return np.asarray(array)


def _open_matlab(path: Path) -> ArrayFile:
    """Files of MATLAB 5 to 7."""
    file = Matlab5(path)
    with _reading(path):
        kinds = file.contents()

    def reader(name: str) -> Callable[[], np.ndarray]:
        return lambda: _python_axes(file.load(name))

    def structure(name: str) -> Callable[[], Tree]:
        return lambda: file.load(name)

    nested = [name for name, kind in kinds.items() if kind in ("struct", "cell")]
    return ArrayFile(
        path,
        {name: reader(name) for name in kinds},
        matlab=True,
        structures={name: structure(name) for name in nested},
    )


def _open_hdf5(path: Path) -> ArrayFile:
    """Files of MATLAB 7.3, which HDF5 holds with their axes reversed."""
    import h5py

    with _reading(path), h5py.File(path) as file:
        names = [name for name in file if isinstance(file[name], h5py.Dataset)]
        nested = [
            name
            for name in file
            if not name.startswith("#")
            and (isinstance(file[name], h5py.Group) or file[name].dtype == object)
        ]

    def read(name: str) -> np.ndarray:
        with h5py.File(path) as file:
            array = np.asarray(file[name][()])
            logical = file[name].attrs.get("MATLAB_class") == b"logical"
        if array.dtype.names == ("real", "imag"):
            array = array["real"] + 1j * array["imag"]
        if array.dtype.hasobject:
            raise ValueError("cells and structures: allow_pickle")
        return _python_axes(array.transpose().astype(bool) if logical else array.transpose())

    def reader(name: str) -> Callable[[], np.ndarray]:
        return lambda: read(name)

    def structure(name: str) -> Callable[[], Tree]:
        def read_tree() -> Tree:
            with h5py.File(path) as file:
                return tree_of_hdf5(file[name], file)

        return read_tree

    return ArrayFile(
        path,
        {name: reader(name) for name in names},
        matlab=True,
        structures={name: structure(name) for name in nested},
    )


def _python_axes(array: Any) -> np.ndarray:
    """MATLAB's axes (K, N, F, B) as (B, F, K, N)."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biufc":
        raise ValueError("cells and structures: allow_pickle")
    return array.transpose(*range(array.ndim - 1, 1, -1), 0, 1)
