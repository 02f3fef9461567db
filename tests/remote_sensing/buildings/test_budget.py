# SPDX-License-Identifier: Apache-2.0
"""rs-buildings infer --within, --max-memory, --budget, --variant."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sample_scenes import Town

from fieldfare.common.budget.front import dominated
from fieldfare.common.budget.variants import variants_of
from fieldfare.remote_sensing.buildings.cli import main
from fieldfare.remote_sensing.buildings.networks.models import TASK

pytestmark = pytest.mark.usefixtures("started_now")


def infer(town: Town, output: Path, *options: str) -> Result:
    return CliRunner().invoke(
        main, ["infer", str(town.image), "-o", str(output), "--tile", "256", "--json", *options]
    )


def test_the_packaged_variants_are_a_front() -> None:
    found = variants_of(TASK)
    assert len(found.variants) >= 6
    assert sum(not out for out in dominated(found.variants)) >= 4
    assert "Nairobi A" in found.metric


def test_the_chosen_variant_is_told_and_can_be_replayed(town: Town, tmp_path: Path) -> None:
    chosen = infer(town, tmp_path / "a.geojson", "--within", "1h", "--max-memory", "64GiB")
    assert chosen.exit_code == 0, chosen.output
    told = json.loads(chosen.stdout)
    assert told["variant"] == variants_of(TASK).variants[0].name
    assert told["run_seconds"] <= 3600
    assert "expects building IoU on Nairobi A" in chosen.stderr
    assert "of 1 h 00 min" in chosen.stderr
    again = infer(town, tmp_path / "b.geojson", "--variant", told["variant"])
    assert again.exit_code == 0, again.output
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()


def test_fewer_operations_are_another_variant(town: Town, tmp_path: Path) -> None:
    smallest = min(variants_of(TASK).variants, key=lambda variant: variant.macs)
    done = infer(town, tmp_path / "a.geojson", "--budget", f"{smallest.macs}mac", "--dry-run")
    assert done.exit_code == 0, done.output
    assert smallest.name.split("-")[0] in done.stderr


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--within", "1ms"), "--within"),
        (("--max-memory", "1MiB"), "--max-memory"),
        (("--budget", "1MMAC"), "--budget"),
        (("--variant", "L9"), "there are: "),
        (("--within", "5"), "5min"),
        (("--variant", "L1-bf16", "--within", "1h"), "takes no --within"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_work(
    town: Town, tmp_path: Path, options: tuple[str, ...], word: str
) -> None:
    before = set(tmp_path.iterdir())
    refusal = infer(town, tmp_path / "a.geojson", *options)
    assert refusal.exit_code == 2
    assert word in refusal.stderr
    assert set(tmp_path.iterdir()) == before
