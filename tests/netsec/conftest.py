# SPDX-License-Identifier: Apache-2.0
"""Lets the tests import the helper modules beside them, whatever pytest's import mode."""

import sys
from pathlib import Path

for folder in (Path(__file__).parent, Path(__file__).parent / "capture"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
