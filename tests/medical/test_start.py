# SPDX-License-Identifier: Apache-2.0
"""What a run of med-seg infer loads: nothing that it does not need."""

import subprocess
import sys
from pathlib import Path

import pytest
from sample_volumes import write_case

SLOW = {
    *("matplotlib", "lightning_fabric", "sympy", "torch._dynamo", "torch._inductor"),
    *("torchvision", "timm", "ray", "pandas"),
}
CODE = f"""
import sys
from fieldfare.medical.cli import main
try:
    main()
finally:
    print("loaded:", *sorted({SLOW} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        ((), set()),
        (("--prob", "p.nii.gz", "--tta", "axial", "--max-memory", "4GiB"), set()),
        (("--dry-run", "--json"), set()),
        (("--report", "r.html", "--viewer"), {"matplotlib"}),
    ],
)
def test_infer_loads_only_what_it_needs(
    arguments: tuple[str, ...], needed: set[str], tmp_path: Path
) -> None:
    write_case(tmp_path / "P1")
    answer = subprocess.run(
        [sys.executable, "-c", CODE, "infer", "P1", "-o", "s.nii.gz", "--quiet", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "s.nii.gz").exists() != ("--dry-run" in arguments)
    assert set(answer.stdout.splitlines()[-1].split()[1:]) == needed
