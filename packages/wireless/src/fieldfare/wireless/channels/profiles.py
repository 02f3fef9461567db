# SPDX-License-Identifier: Apache-2.0
"""What users ask for: a CSV with columns user, adequate, desired and, optionally, weight."""

import csv
import math
from pathlib import Path

import torch

from fieldfare.common.errors import InputError

from ..signals.satisfaction import Profile

COLUMNS = ("user", "adequate", "desired")


def read_profile(path: Path) -> Profile:
    """Read a profile; users are numbered from 0, in any order, none missing.

    Raises:
        InputError: no such file, no such column, a user twice or missing, or numbers that are none,
            negative, or with the desired efficiency not above the adequate one.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = reader.fieldnames or []
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error})") from None
    if missing := [name for name in COLUMNS if name not in names]:
        raise InputError(
            f"{path}: no column {missing[0]}; name the columns {','.join(COLUMNS)},weight"
        )
    found: dict[int, tuple[float, float, float]] = {}
    for line, row in enumerate(rows, 2):
        try:
            user = int(row["user"])
            adequate, desired = float(row["adequate"]), float(row["desired"])
            weight = float(row.get("weight") or 1)
        except (TypeError, ValueError):
            raise InputError(f"{path}: line {line} is not all numbers") from None
        if not (0 <= adequate < desired < math.inf and 0 <= weight < math.inf):
            raise InputError(
                f"{path}: line {line}: 0 <= adequate < desired and weight >= 0 must hold"
            )
        if user in found or not 0 <= user < len(rows):
            raise InputError(
                f"{path}: line {line}: user {user}; number {len(rows)} users 0 to {len(rows) - 1},"
                " each once"
            )
        found[user] = adequate, desired, weight
    if not any(weight > 0 for *_, weight in found.values()):
        raise InputError(f"{path}: no user has a weight; give at least one")
    ordered = torch.tensor([found[user] for user in sorted(found)], dtype=torch.float64)
    return Profile(*ordered.unbind(-1))
