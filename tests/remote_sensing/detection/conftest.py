# SPDX-License-Identifier: Apache-2.0
"""Orchards made in code, shared by the tests of detection."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests share sample_objects.py

from sample_objects import Orchard, save_tiny, write_orchard


@pytest.fixture
def orchard(tmp_path: Path) -> Orchard:
    """Five discs, 160 x 224 pixels of 0.3 m in UTM, with boxes."""
    return write_orchard(tmp_path)


@pytest.fixture(scope="session")
def detector(tmp_path_factory) -> Path:
    """A model file of a tiny detector with random weights."""
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny.safetensors")
