# SPDX-License-Identifier: Apache-2.0
"""What all tests share: how Hypothesis runs, a browser, folders of data too large to keep here."""

import os
import signal
import time
from pathlib import Path

import pytest

pytest_plugins = ["browser"]

try:
    from hypothesis import settings
except ModuleNotFoundError:  # a package whose tests do without it
    pass
else:
    settings.register_profile("fieldfare", deadline=None)  # no test depends on the clock
    settings.load_profile("fieldfare")

# A run started in the background ignores Ctrl-C, and so would the commands that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _folder(variable: str) -> Path:
    if not os.environ.get(variable):
        pytest.skip(f"NOT CHECKED: set {variable} to the folder that holds it")
    return Path(os.environ[variable])


@pytest.fixture
def started_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--within` counts from a second before the test, not from when its process began."""
    from fieldfare.common.commands import budget

    began = time.monotonic() - 1
    monkeypatch.setattr(budget, "running_seconds", lambda: time.monotonic() - began)


@pytest.fixture(scope="session")
def data() -> Path:
    """The data sets, named by FIELDFARE_DATA."""
    return _folder("FIELDFARE_DATA")


@pytest.fixture(scope="session")
def reference() -> Path:
    """Tensors made by the published code, named by FIELDFARE_REFERENCE."""
    return _folder("FIELDFARE_REFERENCE")
