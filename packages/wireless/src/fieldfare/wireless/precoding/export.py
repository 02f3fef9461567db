# SPDX-License-Identifier: Apache-2.0
"""The whole precoder as ONNX in real arithmetic, any batch, users and antennas.

ONNX has neither complex numbers nor Cholesky factors. A complex matrix C becomes the real block
matrix [[Re C, -Im C], [Im C, Re C]], and both systems are solved by a fixed number of conjugate-
gradient steps, each column of which stops by its own residual, as in `solve.conjugate_gradients`.
"""

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from fieldfare.common.efficiency.export import export_onnx

from ..channels.rayleigh import rayleigh
from ..networks.graph import static_features
from ..networks.precoder import IcgnnPrecoder
from ..networks.structure import FLOOR
from .methods import Precoded, Precoder

TOLERANCE = 1e-5
INPUTS = ("channels", "power", "noise_power")
OUTPUT = "precoders"
CG_TOLERANCE = 1e-6


class RealPrecoder(nn.Module):
    """`networks.precoder.precode` with equal weights and its guard, in real arithmetic.

    Args:
        network: the trained network.
        iterations: most conjugate-gradient steps; 2 K are enough for K users.
    """

    def __init__(self, network: IcgnnPrecoder, iterations: int) -> None:
        super().__init__()
        self.network = network
        self.iterations = iterations

    def forward(self, channels: Tensor, power: Tensor, noise_power: Tensor) -> Tensor:
        """W of channels.

        Args:
            channels: (B, K, N, 2), real and imaginary part of H.
            power, noise_power: (B,).

        Returns:
            (B, N, K, 2).
        """
        users, antennas = channels.shape[1:3]
        real, imaginary = channels.unbind(-1)
        H = _block(real, imaginary)  # (B, 2 K, 2 N)
        A = H @ H.mT * (power / noise_power)[:, None, None]
        weights = torch.ones_like(real[..., 0])
        equal = weights / users
        rzf = self._structure(A, equal)

        def respond(uplink: Tensor, downlink: Tensor) -> Tensor:
            return _received(A, self._structure(A, uplink), downlink)[1]

        safe, start = _received(A, rzf, equal)
        static = static_features(_diagonal(A, users), _magnitude(A, users), weights)
        uplink, downlink = self.network(static, weights, start, respond)
        learned, received = _received(A, self._structure(A, uplink), downlink)
        better = _sum_rate(received) >= _sum_rate(start)
        chosen = torch.where(better[:, None, None], learned, safe)
        W = H.mT @ chosen * (power / noise_power.sqrt())[:, None, None]
        return torch.stack([W[:, :antennas, :users], W[:, antennas:, :users]], -1)

    def _structure(self, A: Tensor, uplink: Tensor) -> Tensor:
        """As `networks.structure.structure`, (B, 2 K, 2 K)."""
        root = uplink.clamp_min(FLOOR).sqrt()
        root = torch.cat([root, root], -1).unsqueeze(-1)
        return root * self._solve(root * A * root.mT) / root.mT

    def _solve(self, matrix: Tensor) -> Tensor:
        """(matrix + I)^-1 by conjugate gradients on the scaled system, (B, 2 K, 2 K)."""
        eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        system = matrix + eye
        scale = torch.diagonal(system, dim1=-2, dim2=-1).rsqrt().unsqueeze(-1)
        system = scale * system * scale.mT
        B = scale * eye
        solution = torch.zeros_like(system)
        residual = direction = B
        squared = residual.square().sum(-2, keepdim=True)
        goal = CG_TOLERANCE**2 * squared
        for _ in range(self.iterations):
            active = squared > goal
            image = system @ direction
            curvature = (direction * image).sum(-2, keepdim=True)
            step = torch.where(active, squared / torch.where(active, curvature, 1.0), 0.0)
            solution = solution + step * direction
            residual = residual - step * image
            previous, squared = squared, residual.square().sum(-2, keepdim=True)
            turn = torch.where(active, squared / torch.where(active, previous, 1.0), 0.0)
            direction = residual + turn * direction
        return scale * solution


def _block(real: Tensor, imaginary: Tensor) -> Tensor:
    upper = torch.cat([real, -imaginary], -1)
    return torch.cat([upper, torch.cat([imaginary, real], -1)], -2)


def _magnitude(block: Tensor, users: int) -> Tensor:
    """|C|^2 of a block matrix, (B, K, K)."""
    return block[:, :users, :users].square() + block[:, users:, :users].square()


def _diagonal(block: Tensor, users: int) -> Tensor:
    return torch.diagonal(block[:, :users, :users], dim1=-2, dim2=-1)


def _received(A: Tensor, Y: Tensor, downlink: Tensor) -> tuple[Tensor, Tensor]:
    """Y with columns scaled to the powers `downlink`, and |h_k w_j|^2 / s2, (B, K, K)."""
    users = downlink.shape[-1]
    image = A @ Y
    norm = (Y * image).sum(-2)[:, :users]
    scale = (downlink / norm.clamp_min(1e-20)).sqrt()
    scale = torch.cat([scale, scale], -1).unsqueeze(-2)
    return Y * scale, _magnitude(image * scale, users)


def _sum_rate(received: Tensor) -> Tensor:
    signal = torch.diagonal(received, dim1=-2, dim2=-1)
    return torch.log1p(signal / (received.sum(-1) - signal + 1)).sum(-1)


def write_onnx(network: IcgnnPrecoder, target: Path, iterations: int) -> float:
    """Write a precoder as ONNX.

    Args:
        network: the trained network.
        target: the file.
        iterations: most conjugate-gradient steps of a solve.

    Returns:
        The largest difference between ONNX Runtime and torch.

    Raises:
        InputError: the export packages are not installed.
        RunError: ONNX Runtime disagrees; nothing is written.
    """
    generator = torch.Generator().manual_seed(0)
    channels = torch.view_as_real(rayleigh((3, 6, 8), generator))
    levels = [torch.tensor([1.0, 10.0, 100.0]), torch.tensor([1.0, 2.0, 1.0])]
    batch, users, antennas = (Dim(name) for name in ("batch", "users", "antennas"))
    return export_onnx(
        RealPrecoder(network, iterations),
        [channels, *levels],
        target,
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


def onnx_precoder(network: IcgnnPrecoder, iterations: int, threads: int) -> Precoder:
    """The same through ONNX Runtime, as a function of channels (B, K, N); for timing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "precoder.onnx"
        write_onnx(network, path, iterations)
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(
            path.read_bytes(), settings, providers=["CPUExecutionProvider"]
        )

    def precode(H: Tensor, power: Tensor, noise_power: Tensor, weights: Tensor | None) -> Precoded:
        values = (torch.view_as_real(H), power, noise_power)
        feed = dict(zip(INPUTS, (value.numpy() for value in values), strict=True))
        return Precoded(torch.view_as_complex(torch.from_numpy(session.run([OUTPUT], feed)[0])))

    return precode
