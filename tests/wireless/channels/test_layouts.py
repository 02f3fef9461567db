# SPDX-License-Identifier: Apache-2.0
"""Channels as Sionna, DeepMIMO and MATLAB lay them out, all read as H (B, F, K, N)."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from fieldfare.common.errors import InputError
from fieldfare.wireless.channels.files import read_channels, read_network

H = np.random.default_rng(0).normal(size=(5, 3, 4, 2)) @ np.array([1, 1j])
H2 = np.random.default_rng(1).normal(size=(5, 6, 3, 4, 2)) @ np.array([1, 1j])
LEVELS = {"power": 2.0, "noise_power": 0.5}


def write_matlab_7(path: Path, arrays: dict[str, Any]) -> None:
    """As MATLAB 7.3 does: HDF5 behind 512 bytes, axes reversed, complex as pairs."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in arrays.items():
            array = np.atleast_2d(np.asarray(value)).T
            if np.iscomplexobj(array):
                pairs = np.empty(array.shape, [("real", "f8"), ("imag", "f8")])
                pairs["real"], pairs["imag"] = array.real, array.imag
                array = pairs
            file[name] = array.astype(np.uint8) if array.dtype == bool else array
            if array.dtype == bool:
                file[name].attrs["MATLAB_class"] = np.bytes_("logical")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(512))


WRITERS = {"v5": scipy.io.savemat, "v7.3": write_matlab_7}


@pytest.fixture(params=list(WRITERS))
def matlab(request: pytest.FixtureRequest) -> Any:
    return WRITERS[request.param]


def test_pages_of_matlab_are_channels(matlab: Any, tmp_path: Path) -> None:
    path, weights, noise = tmp_path / "h.mat", np.arange(1.0, 16).reshape(5, 3), np.arange(1.0, 6)
    pages = H.transpose(1, 2, 0)
    matlab(path, {"H": pages, "power": 2.0, "noise_power": noise, "weights": weights.T})
    found = read_channels(path)
    np.testing.assert_array_equal(found.H.numpy(), H)
    np.testing.assert_array_equal(found.noise_power.numpy(), noise)
    assert found.weights is not None
    np.testing.assert_array_equal(found.weights.numpy(), weights)
    matlab(path, {"H": H2.transpose(2, 3, 1, 0), **LEVELS})
    np.testing.assert_array_equal(read_channels(path).H.numpy(), H2)
    matlab(path, {"H": H[0], **LEVELS})
    np.testing.assert_array_equal(read_channels(path).H.numpy(), H[0])


def test_networks_of_matlab(matlab: Any, tmp_path: Path) -> None:
    path, beta = tmp_path / "n.mat", np.random.default_rng(0).uniform(1, 2, (2, 3, 4))
    serving = np.ones((3, 4), bool)
    serving[0, 1] = False
    arrays = {"beta": beta.transpose(1, 2, 0), "gamma": beta.transpose(1, 2, 0) / 2}
    matlab(path, {**arrays, "power": 3.0, "serving": serving, "pilots": np.array([1.0, 2, 1])})
    found = read_network(path)
    np.testing.assert_array_equal(found.beta.numpy(), beta)
    np.testing.assert_array_equal(found.serving.numpy(), np.broadcast_to(serving, beta.shape))
    assert found.pilots is not None
    assert found.pilots.tolist() == [[1, 2, 1]] * 2


def test_cells_of_matlab_are_refused(tmp_path: Path) -> None:
    path, cells = tmp_path / "h.mat", np.empty(2, dtype=object)
    cells[:] = [H[0], H[1]]
    scipy.io.savemat(path, {"H": cells, **LEVELS})
    with pytest.raises(InputError, match="save plain arrays"):
        read_channels(path)


@pytest.mark.parametrize("version", [b"MATLAB 5.0", b"\x89HDF\r\n\x1a\n"])
def test_damaged_matlab_files_are_refused(version: bytes, tmp_path: Path) -> None:
    path = tmp_path / "h.mat"
    path.write_bytes(version + bytes(300))
    with pytest.raises(InputError, match="damaged MATLAB file"):
        read_channels(path)


def sionna(**changes: int) -> np.ndarray:
    """Seven axes, [batch, receiver, antenna, transmitter, antenna, symbol, subcarrier]."""
    sizes = {"batch": 2, "rx": 3, "rx_ant": 1, "tx": 1, "tx_ant": 4, "symbol": 2, "tone": 5}
    generator = np.random.default_rng(0)
    return generator.normal(size=(*(sizes | changes).values(), 2)) @ np.array([1, 1j])


def write(folder: Path, **arrays: Any) -> Path:
    path = folder / "h.npz"
    np.savez(path, **(LEVELS | arrays))
    return path


def test_every_symbol_and_subcarrier_of_sionna_is_a_channel(tmp_path: Path) -> None:
    h = sionna()
    found = read_channels(write(tmp_path, h=h)).H.numpy()
    assert found.shape == (2, 10, 3, 4)
    np.testing.assert_array_equal(found[1, 7, 2], h[1, 2, 0, 0, :, 1, 2])
    np.testing.assert_array_equal(read_channels(write(tmp_path, H=h)).H.numpy(), found)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"h": sionna(tx=2)}, "2 transmitters; keep one"),
        ({"h": sionna(rx_ant=2)}, "2 antennas a user; say how many streams"),
        ({"h": sionna(rx=1, rx_ant=4, tx=3, tx_ant=1)}, r"uplink .*h.transpose\(0, 3, 4, 1, 2"),
        ({"h": sionna(), "tau": np.ones(3)}, "cir_to_ofdm_channel"),
        ({"channel": np.ones((6, 2, 4, 3), complex)}, "2 antennas a user"),
        ({"H": sionna()[0]}, "make it .*Sionna's seven axes"),
        ({"H": H, "Weights": np.ones(3)}, "Weights is no name of ours; is it weights"),
        ({"H": H, "weight": np.ones(3)}, "is it weights"),
        ({"H": H, "Htrue": H}, "is it H_true"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    arrays: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        read_channels(write(tmp_path, **arrays))


def test_other_names_are_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path, H=H, positions=np.ones((3, 2)), names=np.array(["a"], dtype=object))
    assert read_channels(path).H.shape == (5, 3, 4)


def test_users_of_deepmimo_become_rows(tmp_path: Path) -> None:
    channel = H2.transpose(2, 0, 3, 1)[:, :1]  # user, its antenna, base station's antenna, tone
    found = read_channels(write(tmp_path, channel=channel, LoS=np.ones(3))).H.numpy()
    np.testing.assert_array_equal(found, H2[0])
    path = tmp_path / "h.mat"
    scipy.io.savemat(path, {"channel": channel, **LEVELS})
    np.testing.assert_array_equal(read_channels(path).H.numpy(), H2[0])
