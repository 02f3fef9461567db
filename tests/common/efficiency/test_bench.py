# SPDX-License-Identifier: Apache-2.0
"""bench: its bookkeeping, on a clock of our own; no test here depends on how fast anything is."""

import itertools
import time

import pytest
import torch
from torch import nn

from fieldfare.common.efficiency import bench, bench_pair


@pytest.fixture
def clock(monkeypatch):
    """A perf_counter that moves only when told to."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance


def test_summary_of_known_times(clock):
    # Two warm-ups, the memory call, then the five that count.
    times = iter([9.0, 9.0, 9.0, 1.0, 2.0, 3.0, 4.0, 10.0])
    result = bench(lambda: clock(next(times)), repeats=5, warmup=2)
    assert (result.median_s, result.iqr_s, result.min_s, result.max_s) == (3.0, 2.0, 1.0, 10.0)
    assert (result.device, result.threads, result.repeats) == ("cpu", torch.get_num_threads(), 5)
    assert next(times, None) is None


def test_pairs_alternate_and_are_compared_one_by_one(clock):
    order = []
    slow, drift = itertools.count(1), itertools.count(1)

    def a():
        order.append("a")
        clock(3.0 * next(slow))

    def b():
        order.append("b")
        clock(1.0 * next(drift))

    result = bench_pair(a, b, repeats=4, warmup=1)
    assert "".join(order) == "ab" + "ab" + "ab" * 4  # warm-up, memory, timed
    assert (result.ratio, result.ratio_iqr) == (3.0, 0.0)
    assert result.a.median_s == 3 * result.b.median_s


def test_module_runs_in_inference_mode_and_keeps_its_flag():
    seen = []

    class Net(nn.Module):
        def forward(self, x):
            seen.append((torch.is_inference_mode_enabled(), self.training, tuple(x.shape)))

    bench(Net(), torch.zeros(2, 3), repeats=2, warmup=0)
    assert set(seen) == {(True, True, (2, 3))}


def test_plain_function_runs_as_it_is():
    seen = []
    bench(lambda x: seen.append(torch.is_grad_enabled()), torch.zeros(1), repeats=2)
    assert all(seen)


def test_peak_bytes_sees_a_large_tensor():
    result = bench(lambda: torch.ones(16 * 2**20).sum(), repeats=2, warmup=1)
    if result.peak_bytes is None:
        pytest.skip("this system does not tell the peak memory of a process")
    assert 60 * 2**20 < result.peak_bytes < 90 * 2**20  # 64 MiB


@pytest.mark.parametrize(
    ("options", "named"), [({"repeats": 1}, "repeats 1"), ({"warmup": -1}, "-1")]
)
def test_bad_counts_are_refused(options, named):
    with pytest.raises(ValueError, match=named):
        bench(lambda: None, **options)
    with pytest.raises(ValueError, match=named):
        bench_pair(lambda: None, lambda: None, **options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_memory_is_that_of_tensors():
    x = torch.zeros(2**20, device="cuda")
    result = bench(lambda x: x + 1, x, repeats=2)
    assert result.device.startswith("cuda")
    assert result.peak_bytes == 4 * 2**20
