# SPDX-License-Identifier: Apache-2.0
"""Eight-bit networks for ONNX Runtime: static for convolutions, dynamic for transformers.

Static: weights and activations, the ranges of the latter measured on calibration inputs. Dynamic:
weights of matrix products, the activations' ranges taken from each input. Both shrink a file to
about a quarter; whether they are faster depends on the network and processor, so measure.

Jacob et al. 2018, *Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-
Only Inference* (arXiv 1712.05877).
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, RunError
from ..files import atomic_path

Inputs = Mapping[str, NDArray[Any]]
"""By name, as the ONNX file has them."""


@dataclass(frozen=True)
class Quantised:
    """What came of it.

    Attributes:
        bytes_before, bytes_after: of the files.
        error: largest difference on the check's inputs, as a share of the largest absolute output.
    """

    bytes_before: int
    bytes_after: int
    error: float


def quantise_static(
    source: Path,
    target: Path,
    calibration: Iterable[Inputs],
    check: Inputs,
    *,
    install: str,
    leave: Iterable[str] = (),
) -> Quantised:
    """Eight-bit weights, by output channel, and activations.

    Args:
        source: an ONNX file in float32.
        target: replaced atomically.
        calibration: inputs whose activations' ranges are taken; from training data.
        check: other inputs, for the error.
        install: what pip installs the packages with: `distribution[extra]`.
        leave: names of nodes that stay in float32.

    Raises:
        InputError: the packages are not installed, or there is no calibration input.
        RunError: the result is not a number.
    """
    quantisation = _library(install)

    class Reader(quantisation.CalibrationDataReader):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            self._inputs: Iterator[Inputs] = iter(calibration)
            self.count = 0

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            found = next(self._inputs, None)
            self.count += found is not None
            return None if found is None else dict(found)

    reader = Reader()
    first = next(iter(reader._inputs), None)
    if first is None:
        raise InputError(f"{source}: quantisation needs at least one calibration input")
    reader._inputs = _chain(first, reader._inputs)
    with atomic_path(target) as temporary:
        quantisation.quantize_static(
            source,
            temporary,
            reader,
            quant_format=quantisation.QuantFormat.QDQ,
            per_channel=True,
            nodes_to_exclude=list(leave),
            extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
        )
        return _checked(source, Path(temporary), check, target)


def quantise_dynamic(source: Path, target: Path, check: Inputs, *, install: str) -> Quantised:
    """Eight-bit weights of matrix products; arguments and errors as for `quantise_static`."""
    quantisation = _library(install)
    with atomic_path(target) as temporary:
        quantisation.quantize_dynamic(
            source,
            temporary,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=quantisation.QuantType.QInt8,
        )
        return _checked(source, Path(temporary), check, target)


def _library(install: str) -> Any:
    try:
        import onnx  # noqa: F401
        from onnxruntime import quantization
    except ImportError:
        raise InputError(f"quantisation needs: pip install '{install}'") from None
    logging.getLogger().addFilter(_no_advice)
    return quantization


_ADVICE = ("pre-processing before quantization", "out-of-range for weight")


def _no_advice(record: logging.LogRecord) -> bool:
    """Its advice, and what it says of every norm, goes to the root logger."""
    said = record.getMessage()
    return not any(known in said for known in _ADVICE)


def _chain(first: Inputs, rest: Iterator[Inputs]) -> Iterator[Inputs]:
    yield first
    yield from rest


def _checked(source: Path, made: Path, check: Inputs, target: Path) -> Quantised:
    wanted, got = _run(source, check), _run(made, check)
    scale = max(float(np.abs(output).max()) for output in wanted)
    error = max(float(np.abs(a - b).max()) for a, b in zip(wanted, got, strict=True))
    if not np.isfinite(error):
        raise RunError(f"{target}: the quantised network gives no numbers; nothing was written")
    return Quantised(source.stat().st_size, made.stat().st_size, error / scale if scale else error)


def _run(path: Path, inputs: Inputs) -> list[NDArray[Any]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found: list[NDArray[Any]] = session.run(None, dict(inputs))
    return found
