# SPDX-License-Identifier: Apache-2.0
"""A verb loads what it runs, and nothing beside it that takes long."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sample_rasters import smooth, write_raster

HEAVY = [
    *("torch", "torchvision", "torch._dynamo", "torch._inductor", "sympy", "lightning_fabric"),
    *("timm", "segmentation_models_pytorch", "albumentations", "matplotlib", "ray", "pandas"),
]
CALL = f"""
import importlib, sys
application = importlib.import_module("fieldfare.remote_sensing." + sys.argv.pop(1))
application.main(sys.argv[1:], standalone_mode=False)
print("loaded:", *sorted(set({HEAVY}) & set(sys.modules)))
"""


def loaded(application: str, *arguments: object) -> set[str]:
    """Which of HEAVY a command has loaded when it is done."""
    answer = subprocess.run(
        [sys.executable, "-c", CALL, f"{application}.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    _, *names = answer.stdout.splitlines()[-1].split()
    return set(names)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """64 x 64 pixels of 2.4 m."""
    return write_raster(tmp_path / "scene.tif", smooth(3, 64, 64, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--model", "bicubic"]], ids=str)
def test_super_resolution_needs_torch_alone(rgb, tmp_path, more):
    part = ["--window", "0,0,8,8", "--steps", 1]
    assert loaded("super_resolution", "infer", rgb, "-o", tmp_path / "o.tif", *part, *more) == {
        "torch"
    }


@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--model", "dark-channel"]], ids=str)
def test_dehazing_needs_torch_alone(rgb, tmp_path, more):
    given = ["dehazing", "infer", rgb, "-o", tmp_path / "o.tif", *more]
    assert loaded(*given) == {"torch"}


def test_buildings_need_pandas_too_to_write_a_table_of_footprints(scene, tmp_path):
    part = ["--window", "0,0,32,32"]
    target = tmp_path / "o.gpkg"
    assert loaded("buildings", "infer", scene, "-o", target, *part) == {"torch", "pandas"}
    assert target.exists()


def test_a_dry_run_of_buildings_needs_torch_alone(scene, tmp_path):
    part = ["--window", "0,0,32,32", "--dry-run"]
    assert loaded("buildings", "infer", scene, "-o", tmp_path / "o.gpkg", *part) == {"torch"}


def test_finished_masks_are_compared_without_torch(tmp_path):
    mask = write_raster(tmp_path / "m.tif", np.eye(64, dtype=np.uint8)[None])
    assert loaded("buildings", "eval", mask, "--prediction", mask) == {"pandas"}


def test_detection_needs_pandas_too_to_write_a_table_and_torch_alone_for_coco(scene, tmp_path):
    part = ["--window", "0,0,32,32", "--tile", 64, "--overlap", 0]
    table, coco = tmp_path / "o.gpkg", tmp_path / "o.json"
    assert loaded("detection", "infer", scene, "-o", table, *part) == {"torch", "pandas"}
    assert loaded("detection", "infer", scene, "-o", coco, *part) == {"torch"}
    assert table.exists()
    assert coco.exists()
