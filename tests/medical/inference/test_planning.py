# SPDX-License-Identifier: Apache-2.0
"""A plan fits the memory it was given, and what it predicts is what is measured."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.exceptions import BadParameter
from sample_networks import TINY, Thresholds

from fieldfare.common.console import Bytes
from fieldfare.common.errors import InputError
from fieldfare.medical.inference import memory, planning
from fieldfare.medical.inference.planning import plan_case, tile_bytes
from fieldfare.medical.inference.predict import Predictor
from fieldfare.medical.networks.reversible_unet import ReversibleUNet

MIB = 2**20
SIZE = (140, 170, 130)


def tiny(precision: str = "fp32") -> Predictor:
    return Predictor(ReversibleUNet(TINY), device="cpu", precision=precision)


@pytest.mark.parametrize(
    ("text", "amount"),
    [("2GiB", 2 * 2**30), ("800 MiB", 800 * MIB), ("2GB", 2 * 10**9), ("1.5g", 15 * 10**8)],
)
def test_memory_is_read_as_people_write_it(text: str, amount: int) -> None:
    assert Bytes().convert(text, None, None) == amount


@pytest.mark.parametrize("text", ["", "much", "-1GiB", "0", "2TiBs", "infGiB", "nan"])
def test_no_amount_of_memory_is_refused(text: str) -> None:
    with pytest.raises(BadParameter):
        Bytes().convert(text, None, None)


def test_less_memory_gives_smaller_tiles_and_never_more_than_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A process that held more before can keep no smaller limit, whatever the tile.
    monkeypatch.setattr(planning, "peak", lambda: 0)
    predictor = tiny()
    whole = plan_case(SIZE, predictor)
    assert whole.tile == (128, 128, 128)
    assert whole.limit_bytes is None
    least = plan_case(SIZE, predictor, tile=32).predicted_bytes
    voxels = []
    for limit in np.linspace(whole.predicted_bytes, least, 6):
        plan = plan_case(SIZE, predictor, limit=int(limit) + 8 * MIB)
        assert plan.predicted_bytes <= limit + 8 * MIB
        voxels.append(int(np.prod(plan.tile)))
        assert len(plan.overlap) == 3
        assert all(overlap < tile for overlap, tile in zip(plan.overlap, plan.tile, strict=True))
    assert voxels == sorted(voxels, reverse=True)
    assert voxels[-1] < voxels[0]


def test_what_fits_nowhere_is_refused_with_what_it_takes() -> None:
    with pytest.raises(InputError, match=r"--max-memory 50 MiB: .* at the least") as refused:
        plan_case(SIZE, tiny(), limit=50 * MIB)
    assert "\n" not in str(refused.value)


def test_lower_precision_and_accumulator_are_taken_where_only_they_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predictor = Predictor(Thresholds(), device="cpu", precision="fp32")
    monkeypatch.setattr(memory, "resident", lambda: 0)
    monkeypatch.setattr(planning, "resident", lambda: 0)
    monkeypatch.setattr(planning, "peak", lambda: 0)
    monkeypatch.setattr(planning, "RESERVE", 0)
    each = {"fp32": 1000.0, "bf16": 500.0}
    monkeypatch.setattr(planning, "tile_bytes", lambda predictor, precision: each[precision])
    size, precisions = (32, 32, 32), ("fp32", "bf16")

    def plan(limit: int | None) -> planning.InferencePlan:
        return plan_case(size, predictor, limit=limit, precisions=precisions)

    full = plan(None)
    assert (full.precision, full.accumulator) == ("fp32", "float32")
    half = plan(full.predicted_bytes - 1)
    assert (half.precision, half.accumulator) == ("fp32", "float16")
    lower = plan(half.predicted_bytes - 1)
    assert (lower.precision, lower.accumulator) == ("bf16", "float32")
    assert full.predicted_bytes > half.predicted_bytes > lower.predicted_bytes


def test_slices_of_a_2d_network_shrink_in_number_before_in_size() -> None:
    predictor = Predictor(Thresholds(ndim=2), device="cpu", precision="fp32")
    assert plan_case(SIZE, predictor).tile == (160, 192, 8)
    assert plan_case(SIZE, predictor, batch=3).tile == (160, 192, 3)
    assert plan_case(SIZE, predictor, tile=100).tile == (100, 100, 8)
    tiles = [tile for tile, _ in planning._tiles(SIZE, 2, 32, None, None)]
    assert tiles[:5] == [(160, 192, 8), (160, 192, 4), (160, 192, 2), (160, 192, 1), (160, 160, 8)]


def test_tile_and_overlap_asked_for_are_taken() -> None:
    plan = plan_case(SIZE, tiny(), tile=40, overlap=7)
    assert plan.tile == (40, 40, 40)
    assert plan.overlap == (7, 7, 7)
    assert plan_case((20, 100, 30), tiny()).overlap == (0, 0, 0)


def test_what_a_tile_takes_is_counted_from_tensors() -> None:
    """A pointwise network holds its input, and three maps a few times over."""
    predictor = Predictor(Thresholds(), device="cpu", precision="fp32")
    each = tile_bytes(predictor, "fp32") - planning.COPIES
    assert 4 * 4 + 2 * 3 * 4 <= each <= 4 * 4 + 4 * 3 * 4
    assert tile_bytes(predictor, "fp32") == each + planning.COPIES  # the same again
    assert predictor.dtype == torch.float32


def test_bfloat16_takes_less() -> None:
    predictor = tiny()
    assert tile_bytes(predictor, "bf16") < tile_bytes(predictor, "fp32")
    assert predictor.dtype == torch.float32


def test_flips_take_no_more_than_two() -> None:
    full = Predictor(Thresholds(), device="cpu", precision="fp32", tta="full")
    tile_bytes(full, "fp32")
    assert len(full.network.calls) == 2
    assert len(full.flips) == 8


RUN = """
import sys, pathlib, numpy as np, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from sample_networks import TINY
from sample_volumes import head, write_nifti
from fieldfare.medical.inference import memory
from fieldfare.medical.inference import run as inference
from fieldfare.medical.data.cases import find_case
from fieldfare.medical.networks.reversible_unet import ReversibleUNet
from fieldfare.medical.inference.predict import Predictor
folder = pathlib.Path(sys.argv[2])
for seed, name in enumerate(("t1", "t1ce", "t2", "flair")):
    write_nifti(folder / f"B_{name}.nii.gz", head(seed, (100, 100, 100)))
predictor = Predictor(ReversibleUNet(TINY), device="cpu", precision="fp32")
memory.reset_peak()
settings = inference.InferSettings(force=True, max_memory=int(sys.argv[3]) + memory.resident())
job = inference.open_case(find_case(folder), settings, predictor)
plan = inference.plan(job, settings, predictor)
inference.segment(job, settings, predictor, plan)
print(max(plan.tile), plan.predicted_bytes, memory.peak(), settings.max_memory)
"""


@pytest.mark.slow
@pytest.mark.skipif(not memory.CLEAR_REFS.exists(), reason="NOT CHECKED: takes Linux")
def test_measured_peak_stays_within_what_was_allowed(tmp_path: Path) -> None:
    arguments = [str(Path(__file__).parents[1]), str(tmp_path), str(250 * MIB)]
    answer = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert answer.returncode == 0, answer.stderr
    tile, predicted, measured, limit = map(int, answer.stdout.split())
    assert 32 <= tile < 112  # the whole would not have fitted
    assert measured <= limit
    assert measured <= predicted * 1.03
    assert predicted < measured * 1.3
