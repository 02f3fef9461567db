# SPDX-License-Identifier: Apache-2.0
"""Device, precision, seed and threads, on whatever machine the test runs."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from fieldfare.common import runtime
from fieldfare.common.errors import InputError
from fieldfare.common.runtime import (
    native_bfloat16,
    resolve_device,
    resolve_precision,
    seed_everything,
    set_threads,
)


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    threads = torch.get_num_threads()
    native_bfloat16.cache_clear()
    yield
    native_bfloat16.cache_clear()
    torch.set_num_threads(threads)


def gpu(monkeypatch: pytest.MonkeyPatch, available: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)


def processor(monkeypatch: pytest.MonkeyPatch, path: Path, flags: str) -> None:
    path.write_text(f"model name\t: some\nflags\t\t: fpu sse2 {flags}\n")
    monkeypatch.setattr(runtime, "CPU_INFO", path)


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_cuda_without_a_gpu_is_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    gpu(monkeypatch, available=False)
    with pytest.raises(InputError, match=r"--device cuda: .* use --device cpu"):
        resolve_device(name)
    assert resolve_device("auto") == torch.device("cpu")


def test_auto_takes_cuda_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch, available=True)
    assert resolve_device() == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device("cpu") == torch.device("cpu")


def test_unknown_device_and_precision_are_refused_with_the_choices() -> None:
    with pytest.raises(InputError, match="--device gpu: choose one of auto, cpu, cuda"):
        resolve_device("gpu")
    with pytest.raises(InputError, match="--precision fp16: choose one of auto, fp32, bf16"):
        resolve_precision("fp16", torch.device("cpu"))


@pytest.mark.parametrize(
    ("flags", "native"),
    [("avx2", False), ("avx512f avx512_bf16", True), ("amx_tile amx_bf16", True)],
)
def test_auto_precision_follows_the_processors_flags(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, native: bool
) -> None:
    processor(monkeypatch, tmp_path / "cpuinfo", flags)
    assert native_bfloat16("cpu") is native
    auto = resolve_precision("auto", torch.device("cpu"))
    assert auto == (torch.bfloat16 if native else torch.float32)


def test_processor_without_a_list_of_flags_computes_in_float32(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(runtime, "CPU_INFO", tmp_path / "none")
    assert resolve_precision("auto", torch.device("cpu")) == torch.float32
    assert not native_bfloat16("mps")


@pytest.mark.parametrize(
    ("capability", "native"), [((7, 5), False), ((8, 0), True), ((9, 0), True)]
)
def test_gpus_from_ampere_on_take_bfloat16(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], native: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert native_bfloat16("cuda") is native


def test_precision_that_is_named_is_taken_whatever_the_processor() -> None:
    cpu = torch.device("cpu")
    assert resolve_precision("fp32", cpu) == torch.float32
    assert resolve_precision("bf16", cpu) == torch.bfloat16


def test_seed_fixes_every_generator() -> None:
    def draw() -> tuple[float, ...]:
        return random.random(), np.random.random(), torch.rand(()).item()  # noqa: NPY002

    seed_everything(2**40)  # more than NumPy's generator takes
    first = draw()
    assert draw() != first
    seed_everything(2**40)
    assert draw() == first


def test_threads_are_those_asked_for_else_of_openmp_else_the_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 5}, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert set_threads(1) == torch.get_num_threads() == 1
    assert set_threads() == torch.get_num_threads() == 2
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert set_threads() == torch.get_num_threads() == 3
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert set_threads() == 1
