# SPDX-License-Identifier: Apache-2.0
"""Many rasters in one call: each to its outputs in a folder, through `fieldfare.common.batch`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldfare.common import batch, console
from fieldfare.common.errors import InputError


def infer_many(
    inputs: Sequence[Path],
    folder: Path,
    make_worker: Callable[[], batch.Process],
    outputs_of: Callable[[Path], tuple[Path, ...]],
    settings: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    """Work through rasters and print the summary.

    Args:
        make_worker: see `batch.run`; must be picklable.
        outputs_of: the outputs of one input.
        settings: what the results depend on.
        options: of the command line, with those of `batch.options` among them.

    Raises:
        InputError: two inputs would have one output, or the folder cannot be made.
        SystemExit: some or all inputs failed; the code is that of `batch.Summary`.
    """
    names = [path.stem for path in inputs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"two inputs are named {twice}; their outputs would be one file")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as refusal:
        reason = refusal.strerror
        raise InputError(f"{folder}: cannot be made into a folder ({reason})") from None
    items = [
        batch.Item(
            key=path.stem,
            inputs=(path,),
            outputs=outputs_of(path),
            cost=path.stat().st_size if path.exists() else 0,
        )
        for path in inputs
    ]
    summary = batch.run(
        items,
        make_worker,
        folder,
        engine=options["engine"],
        workers=options["workers"],
        gpus_per_worker=options["gpus_per_worker"],
        retries=options["retries"],
        resume=options["resume"],
        overwrite=options["overwrite"],
        settings=settings,
        progress=(lambda _: None) if options["quiet"] else None,
    )
    for key, text in summary.errors.items():
        console.say(f"failed: {key}: {text}")
    result = {
        name: getattr(summary, name)
        for name in ("done", "failed", "skipped", "seconds", "manifest")
    }
    text = f"{summary.done} done, {summary.skipped} done before, {summary.failed} failed: {folder}"
    console.emit(result, as_json=options["as_json"], text=text)
    if summary.exit_code:
        raise SystemExit(summary.exit_code)
