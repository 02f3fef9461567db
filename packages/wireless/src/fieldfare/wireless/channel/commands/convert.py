# SPDX-License-Identifier: Apache-2.0
"""wl-channel convert."""

from pathlib import Path

from fieldfare.common import console, files
from fieldfare.common.errors import InputError

from ...channels.files import check_name, read_channels, write_channels
from ..options import ConvertOptions


def convert(source: Path, options: ConvertOptions) -> None:
    """Read what `channels.layouts` knows, write our own names and axes."""
    check_name(options.output)
    if options.output.exists() and source.exists() and options.output.samefile(source):
        raise InputError(f"{options.output}: is the input; choose another output")
    files.check_output(options.output, overwrite=options.overwrite)
    stored = read_channels(source, power=options.power, noise_power=options.noise_power)
    write_channels(options.output, stored)
    shape = "x".join(map(str, stored.H.shape))
    result = {"output": options.output, "shape": shape}
    console.emit(result, as_json=options.as_json, text=f"H {shape}\n{options.output}")
