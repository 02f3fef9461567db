# SPDX-License-Identifier: Apache-2.0
"""Two processes over gloo give what one gives with the whole batch."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_training import SETTINGS, Points, SquaredError, network

from fieldfare.common.training import fit

SCRIPT = Path(__file__).with_name("tiny_training.py")


@pytest.mark.slow
def test_two_processes_equal_one_with_the_double_batch_also_when_stopped(tmp_path: Path) -> None:
    """Adam's first moment is a sum of gradients, so it shows a wrong scale; the weights do not.

    Only the first process is asked to stop after step 4: both must, or they would wait for each
    other for ever.
    """
    two = tmp_path / "two"
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "parallel", str(two)],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("stopped after step 4;") == 2
    one = tmp_path / "one"
    settings = dataclasses.replace(SETTINGS, clip_norm=0.0)
    model = fit(network(), Points(), SquaredError(), settings, one, quiet=True)
    for rank in range(2):
        weights = torch.load(two / f"weights{rank}.pt", weights_only=True)
        torch.testing.assert_close(weights, dict(model.state_dict()), rtol=0, atol=1e-6)
    a, b = (torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (one, two))
    torch.testing.assert_close(a["optimizer"]["state"], b["optimizer"]["state"], rtol=0, atol=1e-6)
    largest = max(float(s["exp_avg"].abs().max()) for s in a["optimizer"]["state"].values())
    assert largest > 1e-2
    lines = [(folder / "log.csv").read_text().splitlines() for folder in (one, two)]
    for alone, together in zip(*lines, strict=True):
        if alone != lines[0][0]:
            numbers = [[float(text) for text in line.split(",")] for line in (alone, together)]
            assert numbers[0] == pytest.approx(numbers[1], abs=1e-6)
