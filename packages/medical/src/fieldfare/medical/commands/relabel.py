# SPDX-License-Identifier: Apache-2.0
"""med-seg relabel."""

from pathlib import Path

from fieldfare.common import console, files
from fieldfare.common.errors import InputError

from ..data import regions
from ..options import RelabelOptions
from ..volumes.formats import WRITTEN
from ..volumes.images import read_labels


def relabel(source: Path, options: RelabelOptions) -> None:
    """Write labels in another scheme, with the JSON file that names it."""
    output = options.output
    if not output.name.lower().endswith(WRITTEN):
        raise InputError(f"{output}: cannot be written; give a name in {', '.join(WRITTEN)}")
    if output.exists() and source.exists() and output.samefile(source):
        raise InputError(f"{output}: is the input; choose another output")
    sidecar = regions.sidecar_path(output)
    if sidecar.exists() and sidecar == regions.sidecar_path(source):
        raise InputError(f"{output}: its JSON file would be that of {source}; choose another name")
    for path in (output, sidecar):
        files.check_output(path, overwrite=options.overwrite)
    volume = read_labels(source)
    old = regions.resolve_scheme(source, options.source_scheme, option="--from")
    new = options.target_scheme
    labels = regions.relabel(volume.data, old, new, source=source)
    # What else is recorded of the labels stays true of them.
    details = regions.read_sidecar(source) or {}
    kept = {
        key: value
        for key, value in details.items()
        if key not in ("label_scheme", "labels", "regions")
    }
    kept |= {"relabelled_from": old, "source": source.name}
    regions.write_labels(output, labels, volume, new, **kept)
    result = {"output": output, "sidecar": sidecar, "from": old, "to": new}
    console.emit(result, as_json=options.as_json, text=f"{output}\n{sidecar}")
