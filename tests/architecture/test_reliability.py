# SPDX-License-Identifier: Apache-2.0
"""A small sample of each campaign in benchmarks/reliability."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "packages/remote_sensing/samples/OSBS_029_20cm.tif"
ENLARGE = f"rs-sr infer {SAMPLE} -o {{out}}/x4.tif --model bicubic --window 0,0,64,64 --overwrite"


@pytest.fixture(scope="module")
def channels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Channels for wl-precode."""
    path = tmp_path_factory.mktemp("channels") / "h.npz"
    gen = [Path(sys.executable).with_name("wl-channel"), "gen", "-o", path]
    subprocess.run([*map(str, gen), "--count", "6", "--users", "3", "--antennas", "4"], check=True)
    return path


def campaign(name: str, *arguments: str) -> None:
    script = ROOT / "benchmarks" / "reliability" / f"{name}.py"
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout


@pytest.mark.slow
def test_killed_commands_leave_nothing_half_written_and_go_on(channels: Path) -> None:
    precode = f"wl-precode infer {channels} -o {{out}}/w.npz --overwrite"
    campaign("kills", "--kills", "6", precode, ENLARGE)


@pytest.mark.slow
def test_the_same_bytes_in_any_surroundings(channels: Path) -> None:
    precode = f"wl-precode infer {channels} -o {{out}}/w.npz"
    campaign("determinism", f"{precode} == {precode} --batch 2")


@pytest.mark.slow
def test_damaged_inputs_are_read_or_refused_in_one_line(channels: Path) -> None:
    precode = "wl-precode infer {in} -o {out}/w.npz --method rzf"
    campaign("mutated", "--count", "60", "--input", str(channels), precode)
    enlarge = "rs-sr infer {in} -o {out}/x4.tif --model bicubic --window 0,0,16,16 --quiet"
    campaign("mutated", "--count", "30", "--input", str(SAMPLE), enlarge)
