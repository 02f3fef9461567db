# SPDX-License-Identifier: Apache-2.0
"""Compiled functions are kept on disk for as long as their code is the same."""

import subprocess
import sys
from pathlib import Path

import pytest

from fieldfare.common.compiled import source_stamp

pytest.importorskip("numba")  # of the packages that compile

CODE = """
import sys
from fieldfare.common.compiled import keep
from steps import twice

function = keep(twice, sys.argv[1], "steps")
print(function(3), sum(function.stats.cache_hits.values()))
"""


def test_a_stamp_covers_every_module_beside_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "b.py").write_text("y = 1\n")
    first = source_stamp(str(tmp_path / "a.py"))
    assert first == source_stamp(str(tmp_path / "b.py"))
    (tmp_path / "b.py").write_text("y = 2\n")
    assert first != source_stamp(str(tmp_path / "a.py"))


def test_code_is_taken_from_disk_while_its_stamp_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "steps.py").write_text("def twice(x):\n    return 2 * x\n")
    (tmp_path / "main.py").write_text(CODE)

    def hits(stamp: str) -> list[str]:
        call = [sys.executable, "main.py", stamp]
        done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert hits("a") == ["6", "0"]
    assert hits("a") == ["6", "1"]
    assert hits("b") == ["6", "0"]
