# SPDX-License-Identifier: Apache-2.0
"""med-seg infer --within, --max-memory, --budget, --variant; the packaged networks run here."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sample_volumes import write_case

from fieldfare.common.budget.front import dominated
from fieldfare.common.budget.variants import variants_of
from fieldfare.medical.cli import main
from fieldfare.medical.inference.units import SHAPES, unit
from fieldfare.medical.networks.models import TASK

pytestmark = pytest.mark.usefixtures("started_now")

QUICK = "slices-bf16"


def infer(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["infer", *map(str, arguments)])


@pytest.fixture
def case(tmp_path: Path) -> Path:
    return write_case(tmp_path / "P1")


def limits_of(name: str) -> tuple[str, ...]:
    """Those that leave only this variant and cheaper ones."""
    return "--budget", f"{variants_of(TASK).named(name).macs + 1}mac"


def test_the_packaged_variants_are_a_front() -> None:
    found = variants_of(TASK)
    assert len(found.variants) >= 6
    assert sum(not out for out in dominated(found.variants)) >= 4
    assert "validation phantoms" in found.metric


def test_a_unit_predicts_every_network_of_its_variant() -> None:
    (answer,) = unit(variants_of(TASK).named(QUICK).settings)()  # type: ignore[misc]
    assert answer.shape == (1, 3, *SHAPES[2][2:])


def test_the_chosen_variant_is_told_and_can_be_replayed(case: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"
    limits = (*limits_of("volume-0-bf16"), "--within", "1h", "--max-memory", "64GiB")
    chosen = infer(case, "-o", first, *limits, "--json")
    assert chosen.exit_code == 0, chosen.output
    told = json.loads(chosen.stdout)
    assert told["variant"] == "volume-0-bf16"
    assert told["run_seconds"] <= 3600
    assert "expects mean Dice" in chosen.stderr
    assert "of 1 h 00 min" in chosen.stderr
    assert json.loads(first.with_name("a.json").read_text())["variant"] == told["variant"]
    again = infer(case, "-o", second, "--variant", told["variant"], "--max-memory", "64GiB")
    assert again.exit_code == 0, again.output
    assert first.read_bytes() == second.read_bytes()
    assert first.with_name("a.json").read_text() == second.with_name("b.json").read_text()


def test_the_network_of_slices_is_taken_only_by_name(case: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.nii.gz"
    limits = ("-o", out, "--within", "1h", *limits_of(QUICK), "--dry-run")
    assert "volume-" in infer(case, *limits).stderr
    assert "slices-" in infer(case, *limits, "--model", "resunet_aspp_phantom").stderr


def test_memory_alone_chooses_no_variant(case: Path, tmp_path: Path) -> None:
    done = infer(case, "-o", tmp_path / "a.nii.gz", "--max-memory", "64GiB", "--dry-run", "--json")
    assert done.exit_code == 0, done.output
    assert "expects" not in done.stderr


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ((*limits_of("volume-0-bf16"), "--within", "1ms"), "--within"),
        ((*limits_of("volume-0-bf16"), "--max-memory", "1MiB"), "--max-memory"),
        (("--budget", "1kMAC"), "--budget"),
        (("--variant", "none"), "there are: "),
        (("--variant", QUICK, "--within", "1h"), "takes no --within"),
        (("--variant", QUICK, "--tta", "full"), "is not with --tta full"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_work(
    case: Path, tmp_path: Path, options: tuple[str, ...], word: str
) -> None:
    refusal = infer(case, "-o", tmp_path / "a.nii.gz", *options)
    assert refusal.exit_code == 2, refusal.output
    assert word in refusal.stderr
    assert list(tmp_path.iterdir()) == [case]
