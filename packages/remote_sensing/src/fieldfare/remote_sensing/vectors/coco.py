# SPDX-License-Identifier: Apache-2.0
"""COCO: one JSON of annotations for many images."""

import json
from pathlib import Path
from typing import Any

from fieldfare.common.errors import InputError

LARGEST = 2**30
"""Bytes above which a file of annotations is not read into memory."""


def is_coco(path: Path) -> bool:
    """Whether a JSON file is COCO: it names images and annotations near its beginning or end."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    with open(path, "rb") as file:
        head = file.read(2**16)
    if b'"FeatureCollection"' in head:
        return False
    try:
        found = read_json(path)
    except InputError:
        return False
    return isinstance(found, dict) and {"images", "annotations"} <= set(found)


def read_json(path: Path) -> Any:
    """The content of a file of annotations; raises InputError where it is none."""
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path}: too large for a JSON of annotations; split it")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a readable JSON ({error})") from None
