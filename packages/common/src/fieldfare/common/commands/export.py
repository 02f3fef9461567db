# SPDX-License-Identifier: Apache-2.0
"""`export` and `convert`: check the output, write the file, say how well it agrees."""

from collections.abc import Callable

from .. import console, files
from ..console.shared import ConvertOptions, ExportOptions
from ..errors import InputError


def export(write: Callable[[], float], options: ExportOptions, *, name: str = "") -> None:
    """Write a network as ONNX and say how closely ONNX Runtime and torch agree.

    Args:
        write: writes `options.output`; returns the largest difference.
        name: of the model.
    """
    files.check_output(options.output, overwrite=options.overwrite)
    difference = write()
    heading = f"{name}: " if name else ""
    console.say(
        f"{heading}ONNX Runtime and torch agree within {difference:.1e}", quiet=options.quiet
    )
    result = {"output": options.output, "difference": difference}
    console.emit(result, as_json=options.as_json, text=str(options.output))


def convert(write: Callable[[], str], options: ConvertOptions) -> None:
    """Write a published checkpoint as a model file and say what was found.

    Args:
        write: writes `options.output`; returns one sentence.

    Raises:
        InputError: the output is not named *.safetensors, or `files.check_output` refuses it.
    """
    files.check_output(options.output, overwrite=options.overwrite)
    if options.output.suffix != ".safetensors":
        raise InputError(f"{options.output}: name it *.safetensors")
    console.say(write(), quiet=options.quiet)
    console.emit({"model": options.output}, as_json=options.as_json, text=str(options.output))
