# SPDX-License-Identifier: Apache-2.0
"""Worker processes must be able to import `batch_workers`, whatever pytest's import mode."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)

from batch_workers import Faulty, make_items, plain_loop  # noqa: E402

from fieldfare.common.batch import Item, Summary, run  # noqa: E402


@pytest.fixture(autouse=True)
def _importable_in_children(monkeypatch: pytest.MonkeyPatch) -> None:
    path = os.pathsep.join(filter(None, [HERE, os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setattr("fieldfare.common.batch.dispatch.RETRY_PAUSE", 0.01)


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    """Twenty items, 00 to 19, with small inputs."""
    return make_items(tmp_path, 20)


@pytest.fixture
def faulty(tmp_path: Path) -> Faulty:
    """A worker without faults that logs each start in tmp_path/log."""
    log = tmp_path / "log"
    log.mkdir()
    return Faulty(log)


@pytest.fixture
def expected(items: list[Item], tmp_path: Path) -> dict[str, bytes]:
    """What a plain loop writes for each item."""
    return plain_loop(items, tmp_path / "plain")


@pytest.fixture
def go(tmp_path: Path) -> Callable[..., Summary]:
    """`run` with the output folder, settings and silence filled in."""

    def call(items: list[Item], make_worker: Faulty, **options: object) -> Summary:
        defaults = {"settings": {"model": "tiny"}, "progress": lambda _: None}
        return run(items, make_worker, tmp_path / "out", **(defaults | options))

    return call
