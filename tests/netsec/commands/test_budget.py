# SPDX-License-Identifier: Apache-2.0
"""net-traffic infer --within, --max-memory, --budget, --variant."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from labelled_captures import name, web
from make_captures import pcap

from fieldfare.common.budget.front import dominated
from fieldfare.common.budget.variants import variants_of
from fieldfare.netsec.cli import main
from fieldfare.netsec.inference.units import FLOWS, unit
from fieldfare.netsec.networks.architectures import TASK

pytestmark = pytest.mark.usefixtures("started_now")

CHEAPEST = "netfound-2"


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("captures") / "few.pcap"
    packets = [*(p for port in range(2000, 2006) for p in web(port)), *name(3000)]
    path.write_bytes(pcap(packets))
    return path


def infer(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["infer", *map(str, arguments)])


def test_the_packaged_variants_are_a_front() -> None:
    found = variants_of(TASK)
    assert sum(not out for out in dominated(found.variants)) >= 4
    assert found.metric == "macro-F1 on 397 validation flows"


def test_a_unit_labels_its_flows() -> None:
    table = unit(variants_of(TASK).named(CHEAPEST).settings)()
    assert table.num_rows == FLOWS  # type: ignore[attr-defined]


def test_the_chosen_variant_is_told_and_can_be_replayed(capture: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    chosen = infer(capture, "-o", first, "--within", "1h", "--max-memory", "64GiB", "--json")
    assert chosen.exit_code == 0, chosen.output
    told = json.loads(chosen.stdout)
    assert told["variant"] == variants_of(TASK).variants[0].name
    assert told["run_seconds"] <= 3600
    assert "expects macro-F1 on 397 validation flows" in chosen.stderr
    assert "of 1 h 00 min" in chosen.stderr
    again = infer(capture, "-o", second, "--variant", told["variant"])
    assert again.exit_code == 0, again.output
    assert first.read_bytes() == second.read_bytes()


def test_a_folder_names_its_variant_in_the_manifest(capture: Path, tmp_path: Path) -> None:
    done = infer(capture, "-o", tmp_path, "--variant", CHEAPEST, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["variant"] == CHEAPEST
    header = json.loads((tmp_path / "manifest.jsonl").read_text().splitlines()[0])
    assert header["settings"]["variant"] == CHEAPEST


def test_a_model_leaves_only_its_own_variants(capture: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.csv"
    done = infer(capture, "-o", out, "--model", "netfound_tiny", "--within", "1h", "--json")
    assert json.loads(done.stdout)["variant"] == "netfound-5"


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--within", "1ms"), "--within"),
        (("--max-memory", "1MiB"), "--max-memory"),
        (("--budget", "1kMAC"), "--budget"),
        (("--variant", "none"), "there are: pair-5"),
        (("--variant", "pair-5", "--first-packets", "9"), "is not with --first-packets"),
        (("--within", "1h", "--first-packets", "9"), "nothing was measured with that"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_work(
    capture: Path, tmp_path: Path, options: tuple[str, ...], word: str
) -> None:
    refusal = infer(capture, "-o", tmp_path / "a.csv", *options)
    assert refusal.exit_code == 2
    assert word in refusal.stderr
    assert not list(tmp_path.iterdir())


def test_a_recording_without_end_takes_a_named_variant(tmp_path: Path) -> None:
    refusal = infer("-", "-o", tmp_path / "a.csv", "--within", "1h")
    assert refusal.exit_code == 2
    assert "name a --variant" in refusal.stderr
