# SPDX-License-Identifier: Apache-2.0
"""net-traffic convert."""

from pathlib import Path

from fieldfare.common.commands import export as common
from fieldfare.common.errors import InputError

from ..networks.architectures import TASK, architecture
from ..networks.conversion import convert_checkpoint
from ..options import ConvertOptions


def convert(source: Path, options: ConvertOptions) -> None:
    """Write a published checkpoint as a model file."""
    published = architecture(options.architecture).published
    classes = None if options.classes is None else options.classes.split(",")

    def write() -> str:
        if not source.exists():
            raise InputError(f"{source}: no such file")
        card = convert_checkpoint(published, source, options.output, task=TASK, classes=classes)
        return card.summary

    common.convert(write, options)
