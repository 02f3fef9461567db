# SPDX-License-Identifier: Apache-2.0
"""Each verb loads what it runs, and nothing else."""

import subprocess
import sys

import pytest
from labelled_captures import web
from make_captures import pcap

# What no small input needs; each costs more than to read one.
HEAVY = [
    *("lightning_fabric", "matplotlib", "onnx", "onnxruntime", "pandas", "ray", "scapy", "sklearn"),
    *("sympy", "timm", "torch._dynamo", "torch._inductor", "torchvision"),
]
CODE = """
import sys
from fieldfare.netsec.cli import main
try:
    main()
finally:
    print("loaded:", *sys.modules)
"""


def loaded(*arguments: object) -> set[str]:
    """The modules that a command has loaded in the end."""
    command = [sys.executable, "-c", CODE, *map(str, arguments)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return set(answer.stdout.splitlines()[-1].split()[1:])


@pytest.fixture
def capture(tmp_path):
    path = tmp_path / "c.pcap"
    path.write_bytes(pcap(web(2001)))
    return path


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_infer_loads_torch_and_what_reads_captures(ending, capture, tmp_path):
    found = loaded("infer", capture, "-o", tmp_path / f"f.{ending}", "--quiet")
    assert found >= {"torch", "pyarrow"}
    assert not found & {*HEAVY, "jinja2", "fieldfare.common.training"}


def test_flows_needs_no_torch(capture, tmp_path):
    found = loaded("flows", capture, "-o", tmp_path / "f.parquet", "--quiet")
    assert "pyarrow.parquet" in found
    assert not found & {*HEAVY, "jinja2", "torch", "pyarrow.csv"}


def test_models_reads_no_capture():
    assert not loaded("models") & {*HEAVY, "numba", "pyarrow"}
