# SPDX-License-Identifier: Apache-2.0
"""Which methods are compared, by the names of their rows."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from ..options import LEARNED

Method = TypeVar("Method")


def choose(
    methods: Sequence[str], models: Sequence[str], find: Callable[[str, str], Method]
) -> dict[str, Method]:
    """Methods, each once; the learned one with every model.

    Args:
        methods: names.
        models: names or paths; the rows of several are named after them.
        find: a method's name and a model to the method.
    """
    found = {}
    for method in dict.fromkeys(methods):
        if method != LEARNED:
            found[method] = find(method, "")
            continue
        for model in models:
            label = LEARNED if len(models) == 1 else f"{LEARNED}:{Path(model).stem}"
            found[label] = find(method, model)
    return found
