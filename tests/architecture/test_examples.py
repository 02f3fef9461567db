# SPDX-License-Identifier: Apache-2.0
"""The examples run as they stand, and give what they promise."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(name: str, folder: Path) -> str:
    """What an example prints."""
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_wireless_compares_three_precoders(tmp_path: Path) -> None:
    rates = {
        (snr, name): float(value)
        for snr, name, value in re.findall(
            r"(\d+) dB (\w+): .*? ([\d.]+) ", run("wireless", tmp_path)
        )
    }
    assert len(rates) == len(list(tmp_path.glob("*.npz"))) == 9
    assert rates["20", "icgnn"] > rates["20", "rzf"]


@pytest.mark.slow
def test_netsec_names_both_flows(tmp_path: Path) -> None:
    said = run("netsec", tmp_path)
    assert re.search(r":53 DNS ", said)
    assert re.search(r":80 HTTP ", said)


@pytest.mark.slow
def test_remote_sensing_is_better_than_bicubic(tmp_path: Path) -> None:
    found = dict(re.findall(r"^(\w+): PSNR ([\d.]+) dB", run("remote_sensing", tmp_path), re.M))
    assert float(found["ediffsr_small_x4"]) > float(found["bicubic"]) > 15


@pytest.mark.slow
def test_medical_finds_the_tumour_and_writes_a_report(tmp_path: Path) -> None:
    found = dict(re.findall(r"^(\w+): Dice ([\d.]+)", run("medical", tmp_path), re.M))
    assert float(found["WT"]) > 0.6
    assert (tmp_path / "report.html").stat().st_size > 100_000
