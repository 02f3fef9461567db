# SPDX-License-Identifier: Apache-2.0
"""Files of channels and of cell-free networks: what comes back, and what is refused."""

import contextlib
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fieldfare.common.errors import InputError
from fieldfare.wireless.channels.arrays import write_arrays
from fieldfare.wireless.channels.drops import draw_networks
from fieldfare.wireless.channels.files import (
    ChannelFile,
    read_channels,
    read_network,
    write_channels,
    write_network,
)
from fieldfare.wireless.channels.rayleigh import rayleigh

H = rayleigh((5, 3, 4), torch.Generator().manual_seed(0)).numpy()
BETA = np.full((2, 3, 4), 2.0)
CHANNELS = {"H": H, "noise_power": 0.5, "power": 2.0}
NETWORK = {"beta": BETA, "gamma": 0.5 * BETA, "power": 200.0}


def changed(array: np.ndarray, index: tuple[int, ...], value: complex) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


def write(folder: Path, arrays: dict[str, Any]) -> Path:
    path = folder / "in.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("size", [(3, 4), (5, 3, 4), (5, 2, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_channels_come_back(tmp_path: Path, size: tuple[int, ...], dtype: torch.dtype) -> None:
    truth = rayleigh(size, dtype=dtype)
    real = truth.real.dtype
    noise = torch.rand(size[:-2], dtype=real) + 0.1
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=real)
    written = ChannelFile(truth, noise, torch.tensor(4.0, dtype=real), weights, truth, weights)
    write_channels(tmp_path / "H.npz", written)
    found = read_channels(tmp_path / "H.npz")
    assert found.symbols is None
    for before, after in zip(written[:-1], found[:-1], strict=True):
        assert torch.equal(before, after)


def test_levels_given_by_the_caller_replace_the_files(tmp_path: Path) -> None:
    path = write(tmp_path, {"H": H, "power": 2})
    found = read_channels(path, noise_power=0.25, power=8.0)
    assert found.noise_power == 0.25
    assert found.power == 8
    with pytest.raises(InputError, match="power is -1; it must be positive"):
        read_channels(path, noise_power=0.25, power=-1.0)


def test_shared_reference_is_readable(reference: Path) -> None:
    folder = reference / "wireless"
    channels = read_channels(folder / "mumiso_K4_N8.npz", power=10.0)
    assert channels.H.shape == (16, 4, 8)
    network = read_network(folder / "cellfree_L10_K4_N2.npz", power=199.5, antennas=2)
    assert network.beta.shape == (6, 4, 10)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"H": None}, r"no H \(it holds noise_power, power\); add it"),
        ({"noise_power": None}, "no noise_power"),
        ({"H": H.real}, "H is float32; make it complex64 or complex128"),
        ({"H": H[0, 0]}, r"H has shape \(4,\); make it \(K, N\), \(B, K, N\)"),
        ({"H": H[:0]}, r"H has shape \(0, 3, 4\)"),
        ({"H": changed(H, (2, 1, 0), np.nan)}, r"H\[2, 1, 0\] is not finite"),
        ({"H": changed(H, (2, 1, 3), 1j * np.inf)}, r"H\[2, 1, 3\] is not finite"),
        ({"H": changed(H, (4, 2), 1e-30)}, r"H\[4, 2\] squared leaves the range of complex64"),
        ({"H": changed(H, (4, 2), 1e30)}, r"H\[4, 2\] squared leaves the range of complex64"),
        ({"power": 0.0}, "power is 0; it must be positive"),
        ({"noise_power": -1.0}, "noise_power is -1; it must be positive"),
        ({"noise_power": 1e-60}, "noise_power is 1e-60; .* in the range of torch.float32"),
        ({"noise_power": np.nan}, r"noise_power\[\] is not finite"),
        ({"noise_power": np.ones(4)}, r"noise_power has shape \(4,\); it must fit \(5,\)"),
        ({"power": np.array("much")}, "power is <U4; make it a real number"),
        ({"weights": np.ones((5, 4))}, r"weights has shape \(5, 4\); it must fit \(5, 3\)"),
        ({"weights": np.array([1.0, -1, 1])}, "weights is -1; it must not be negative"),
        ({"H_true": H[:, :2]}, r"H_true has shape \(5, 2, 4\) but H \(5, 3, 4\)"),
        ({"H": np.array([[{"a": 1}]], dtype=object)}, "holds Python objects, which are never"),
    ],
)
def test_bad_channels_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    kept = {name: array for name, array in (CHANNELS | arrays).items() if array is not None}
    path = write(tmp_path, kept)
    with pytest.raises(InputError, match=message) as caught:
        read_channels(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_networks_come_back(tmp_path: Path) -> None:
    network = draw_networks(2, 12, 6, 4, serving_aps=3, generator=torch.Generator().manual_seed(0))
    write_network(tmp_path / "net.npz", network)
    for before, after in zip(network, read_network(tmp_path / "net.npz"), strict=True):
        assert torch.equal(before, after)


def test_defaults_of_a_network(tmp_path: Path) -> None:
    network = read_network(write(tmp_path, NETWORK))
    assert network.serving.all()
    assert (network.antennas == 1).all()
    assert network.power.shape == (2, 4)
    assert network.pilots is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"beta": None}, "no beta"),
        ({"beta": BETA.astype(int)}, "beta is int64; make it float32 or float64"),
        ({"gamma": BETA[..., :3] / 2}, r"gamma has shape \(2, 3, 3\) but beta \(2, 3, 4\)"),
        ({"gamma": 2 * BETA}, "gamma exceeds beta"),
        ({"gamma": 0 * BETA}, "no access point serves user 0; let one serve every user that has"),
        ({"gamma": changed(BETA, (0, 1, 2), -1)}, r"gamma\[0, 1, 2\] is negative"),
        ({"beta": changed(BETA, (1, 2, 3), np.inf)}, r"beta\[1, 2, 3\] is not finite"),
        ({"power": 0}, "power is 0; it must be positive"),
        ({"power": np.ones(3)}, r"power has shape \(3,\); it must fit \(2, 4\)"),
        ({"antennas": 1.5}, "antennas must be whole numbers"),
        ({"antennas": 0}, "antennas is 0; it must be positive"),
        ({"serving": np.ones((3, 4))}, "serving is float64; make it true or false"),
        ({"serving": np.zeros((3, 4), bool)}, "no access point serves user 0"),
        ({"pilots": np.zeros(3)}, "pilots is float64; make it whole numbers"),
    ],
)
def test_bad_networks_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    kept = {name: array for name, array in (NETWORK | arrays).items() if array is not None}
    path = write(tmp_path, kept)
    with pytest.raises(InputError, match=message) as caught:
        read_network(path)
    assert str(caught.value).startswith(str(path))


def test_files_that_are_no_npz_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.npz"
    with pytest.raises(InputError, match="no such file"):
        read_channels(path)
    path.write_bytes(pickle.dumps(CHANNELS))
    with pytest.raises(InputError, match="not an npz or MATLAB file"):
        read_channels(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="not an npz or MATLAB file"):
        read_channels(path)


def test_damage_is_reported_as_damage(tmp_path: Path) -> None:
    path = write(tmp_path, CHANNELS)
    whole = bytearray(path.read_bytes())
    for position in range(0, len(whole), 7):
        damaged = whole.copy()
        damaged[position] ^= 0x55
        path.write_bytes(damaged)
        with contextlib.suppress(InputError):  # and no other exception
            read_channels(path)


def test_a_header_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    path, header = tmp_path / "in.npz", io.BytesIO()
    claim = {"descr": "<c8", "fortran_order": False, "shape": (10**9, 10**3, 10**3)}
    np.lib.format.write_array_header_1_0(header, claim)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("H.npy", header.getvalue())
    with pytest.raises(InputError, match=r"memory|damaged"):
        read_channels(path)


def test_nothing_is_written_when_writing_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="setting an array"):
        write_arrays(tmp_path / "out.npz", {"a": np.ones(3), "b": [[1.0], [1.0, 2.0]]})
    assert list(tmp_path.iterdir()) == []
    write_arrays(tmp_path / "odd.name", {"a": torch.ones(3), "b": None})
    with np.load(tmp_path / "odd.name") as file:
        assert file.files == ["a"]
