# SPDX-License-Identifier: Apache-2.0
"""DeepMIMO's dictionaries as MATLAB and scipy save them; what is no plain data is refused."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
from click.testing import CliRunner

from fieldfare.common.errors import InputError
from fieldfare.wireless.channel.cli import main
from fieldfare.wireless.channels.files import read_channels

LEVELS = {"noise_power": 0.5, "power": 2.0}
RNG = np.random.default_rng(0)
CHANNEL = RNG.normal(size=(3, 1, 4, 2, 2)) @ np.array([1, 1j])  # user, its antenna, BS's, tone
EXPECTED = CHANNEL[:, 0].transpose(2, 0, 1)


def cells(values: list[Any]) -> np.ndarray:
    found = np.empty((1, len(values)), dtype=object)
    for index, value in enumerate(values):
        found[0, index] = value
    return found


def user_cells() -> np.ndarray:
    return cells([{"channel": one, "loc": np.zeros((1, 3))} for one in CHANNEL])


@pytest.mark.parametrize(
    "dataset",
    [
        cells([{"user": user_cells(), "loc": np.zeros((1, 3))}]),  # of its MATLAB generator
        {"user": {"channel": CHANNEL, "LoS": np.ones(3)}, "location": np.zeros(3)},  # of Python
        {"user": user_cells()},
    ],
)
def test_dictionaries_of_matlab_5_are_read(dataset: Any, tmp_path: Path) -> None:
    path = tmp_path / "h.mat"
    scipy.io.savemat(path, {"DeepMIMO_dataset": dataset, "params": {"a": 1.0}, **LEVELS})
    np.testing.assert_allclose(read_channels(path).H.numpy(), EXPECTED)


def test_one_subcarrier_loses_its_axis_in_matlab_and_gets_it_back(tmp_path: Path) -> None:
    path = tmp_path / "h.mat"
    users = cells([{"channel": one[..., 0]} for one in CHANNEL])
    scipy.io.savemat(path, {"DeepMIMO_dataset": cells([{"user": users}]), **LEVELS})
    np.testing.assert_allclose(read_channels(path).H.numpy(), EXPECTED[:1])


def test_dictionaries_of_matlab_7_3_are_read(tmp_path: Path) -> None:
    path = tmp_path / "h.mat"
    kind = np.dtype([("real", "f8"), ("imag", "f8")])
    with h5py.File(path, "w", userblock_size=512) as file:
        references = []
        for index, one in enumerate(CHANNEL):
            user = file.create_group(f"#refs#/user{index}")
            turned = one.transpose()
            pairs = np.empty(turned.shape, kind)
            pairs["real"], pairs["imag"] = turned.real, turned.imag
            user.create_dataset("channel", data=pairs)
            references.append([user.ref])
        station = file.create_group("#refs#/station")
        station.create_dataset("user", data=np.array(references, h5py.ref_dtype))
        station.create_dataset("loc", data=np.zeros((3, 1)))
        file.create_dataset("DeepMIMO_dataset", data=np.array([[station.ref]], h5py.ref_dtype))
        for name, level in LEVELS.items():
            file.create_dataset(name, data=[[level]])
    np.testing.assert_allclose(read_channels(path).H.numpy(), EXPECTED)


def test_several_base_stations_and_several_antennas_are_refused(tmp_path: Path) -> None:
    path, station = tmp_path / "h.mat", {"user": user_cells()}
    scipy.io.savemat(path, {"DeepMIMO_dataset": cells([station, station]), **LEVELS})
    with pytest.raises(InputError, match=r"DeepMIMO_dataset has 2 base stations; save one"):
        read_channels(path)
    wide = {"user": {"channel": CHANNEL.repeat(2, 1)}}
    scipy.io.savemat(path, {"DeepMIMO_dataset": wide, **LEVELS})
    with pytest.raises(InputError, match="2 antennas a user"):
        read_channels(path)


def test_python_objects_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "dataset.npy"
    np.save(path, np.array([{"user": {"channel": CHANNEL}}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"DeepMIMO's dictionaries.*numpy.savez"):
        read_channels(path)


def test_convert_writes_what_infer_reads(tmp_path: Path) -> None:
    path, target = tmp_path / "h.mat", tmp_path / "h.npz"
    scipy.io.savemat(path, {"DeepMIMO_dataset": {"user": {"channel": CHANNEL}}})
    arguments = ["convert", str(path), "-o", str(target)]
    assert CliRunner().invoke(main, arguments).exit_code == 2  # powers are in no file
    assert not target.exists()
    levels = ["--power", "2", "--noise-power", "0.5"]
    assert CliRunner().invoke(main, [*arguments, *levels]).exit_code == 0
    found = read_channels(target)
    np.testing.assert_allclose(found.H.numpy(), EXPECTED)
    assert (float(found.power), float(found.noise_power)) == (2, 0.5)
    again = ["convert", str(target), "-o", str(target), "--overwrite"]
    assert CliRunner().invoke(main, again).exit_code == 2


@pytest.mark.parametrize("kind", [0x7A, 0x5A])  # of numbers, which scipy takes for an address
def test_a_file_that_ends_its_reader_is_refused(kind: int, tmp_path: Path) -> None:
    path = tmp_path / "h.mat"
    scipy.io.savemat(path, {"H": CHANNEL[:, 0], **LEVELS})
    whole = path.read_bytes()
    numbers = whole.index(np.array([9, CHANNEL[:, 0].size * 8], "<u4").tobytes())  # real part's tag
    path.write_bytes(whole[:numbers] + bytes([kind]) + whole[numbers + 1 :])
    with pytest.raises(InputError, match=r"h\.mat: damaged MATLAB file"):
        read_channels(path)
    path.write_bytes(whole)
    assert read_channels(path).H.shape == EXPECTED.shape
