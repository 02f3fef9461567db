# SPDX-License-Identifier: Apache-2.0
"""The whole precoder as ONNX, any batch, users and antennas, held against torch over a grid."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.export import Dim

from fieldfare.common.efficiency.export import export_onnx
from fieldfare.common.errors import RunError
from fieldfare.common.files import atomic_path

from ..channels.rayleigh import rayleigh
from ..networks.precoder import IcgnnPrecoder
from ..networks.real import RealPrecoder
from ..signals.rates import squared_magnitude, sum_rate
from .methods import Precoded, Precoder, baseline

TOLERANCE = 1e-5
INPUTS = ("channels", "power", "noise_power")
OUTPUT = "precoders"

SIZES = ((1, 4), (8, 8), (8, 32), (12, 4), (32, 32))
SNRS_DB = (-20, 0, 20, 40, 60)
LEAST_RATE, MOST_POWER = 0.97, 1 + 2e-6
"""Of the mean sum rates of the default method and of greedy selection with RZF, and of the power
given, in every cell of the grid."""


def write_onnx(
    network: IcgnnPrecoder, target: Path, say: Callable[[str], None] = lambda _: None
) -> float:
    """Write a precoder as ONNX, if it keeps power and rate at every size and SNR of a grid.

    Args:
        network: the trained network.
        target: the file.
        say: is told what is being done.

    Returns:
        The largest difference between ONNX Runtime and torch on the channels of the trace.

    Raises:
        InputError: the export packages are not installed.
        RunError: ONNX Runtime disagrees, or the grid's limits are not kept; nothing is written.
    """
    generator = torch.Generator().manual_seed(0)
    channels = torch.view_as_real(rayleigh((3, 6, 8), generator))
    levels = [torch.tensor([1.0, 10.0, 100.0]), torch.tensor([1.0, 2.0, 1.0])]
    batch, users, antennas = (Dim(name) for name in ("batch", "users", "antennas"))
    say("1 of 2: tracing the network, half a minute")
    with atomic_path(target) as temporary:
        difference = export_onnx(
            RealPrecoder(network),
            [channels, *levels],
            temporary,
            input_names=INPUTS,
            output_name=OUTPUT,
            dynamic_shapes={
                "channels": {0: batch, 1: users, 2: antennas},
                "power": {0: batch},
                "noise_power": {0: batch},
            },
            tolerance=TOLERANCE,
            install="fieldfare-wireless[onnx]",
        )
        say(f"2 of 2: holding it against torch, {len(SIZES) + 1} sizes at {len(SNRS_DB)} SNR")
        _check_grid(network, _session(temporary, 0), target)
    return difference


def _check_grid(network: IcgnnPrecoder, precoder: Precoder, target: Path) -> None:
    from ..networks.kernels.channels import compile_network  # loads numba
    from ..networks.kernels.users import precode_compiled

    numbers = compile_network(network)
    for name, H in _grid():
        one = H.real.new_ones(len(H))
        exact = H.to(torch.complex128)
        for snr in SNRS_DB:
            power = one * 10 ** (snr / 10)
            wanted = [
                precode_compiled(numbers, H, power, one).W,
                baseline("greedy")(H, power, one, None).W,
            ]
            W = precoder(H, power, one, None).W.to(torch.complex128)
            best = max(float(sum_rate(exact, other.to(W), 1.0).mean()) for other in wanted)
            rate = float(sum_rate(exact, W, 1.0).mean()) / best
            spent = (squared_magnitude(W).sum((-2, -1)) / power).max()
            if not (rate >= LEAST_RATE and spent <= MOST_POWER):
                raise RunError(
                    f"{target}: with {name} at {snr} dB ONNX Runtime reaches {rate:.3f} of torch's"
                    f" rate with {spent:.6g} of the power; nothing was written"
                )


def _grid() -> Iterator[tuple[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for users, antennas in SIZES:
        yield f"{users} users, {antennas} antennas", rayleigh((8, users, antennas), generator)
    H = rayleigh((8, 8, 8), generator)
    H[:, 1], H[:, 5], H[:, 6] = 1j * H[:, 0], 0.5 * H[:, 4], -H[:, 4]
    yield "users at one place", H


def onnx_precoder(network: IcgnnPrecoder, threads: int) -> Precoder:
    """The same through ONNX Runtime, as a function of channels (B, K, N); for timing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "precoder.onnx"
        write_onnx(network, path)
        return _session(path, threads)


def _session(path: Path, threads: int) -> Precoder:
    """A file through ONNX Runtime; 0 threads for as many as there are cores."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        path.read_bytes(), settings, providers=["CPUExecutionProvider"]
    )

    def precode(H: Tensor, power: Tensor, noise_power: Tensor, weights: Tensor | None) -> Precoded:
        values = (torch.view_as_real(H), power, noise_power)
        feed = dict(zip(INPUTS, (np.asarray(value) for value in values), strict=True))
        return Precoded(torch.view_as_complex(torch.from_numpy(session.run([OUTPUT], feed)[0])))

    return precode
