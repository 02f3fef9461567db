# SPDX-License-Identifier: Apache-2.0
"""The command med-seg infer as it is typed: one case, several, and every kind of bad input."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner, Result
from sample_networks import write_model
from sample_volumes import GRIDS, SHAPE, head, write_case, write_nifti

from fieldfare.common.blocks import MEMORY_MODES
from fieldfare.medical import cli, options
from fieldfare.medical.data import naming, regions
from fieldfare.medical.inference import predict
from fieldfare.medical.inference import run as inference
from fieldfare.medical.phantoms import generate


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, ["infer", *map(str, arguments)])


def refused(result: Result, *said: str) -> None:
    """Exit code 2, one line that says this, no traceback."""
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, result.stderr
    assert result.stderr.rstrip().endswith(lines[0])
    for text in said:
        assert text in lines[0], lines[0]


def case_of(folder: Path) -> Path:
    return write_case(folder / "P1")


def test_choices_are_those_of_the_library() -> None:
    assert tuple(regions.SCHEMES) == options.SCHEMES
    assert options.MODALITIES == naming.MODALITIES
    assert tuple(predict.TTA) == options.TTA
    assert tuple(generate.GENERATORS) == options.GENERATORS
    assert options.MEMORY == MEMORY_MODES


@pytest.mark.parametrize("arguments", [["--help"], ["infer", "--help"]])
def test_help_says_that_it_is_no_medical_device(arguments: list[str]) -> None:
    answer = CliRunner().invoke(cli.main, arguments)
    assert answer.exit_code == 0
    assert "Not a medical device" in answer.stdout


def test_one_command_gives_labels_sidecar_probabilities_report_and_picture(
    model: Path, tmp_path: Path
) -> None:
    case = case_of(tmp_path)
    out = tmp_path / "seg.nii.gz"
    extra = [("--prob", "p.nii.gz"), ("--report", "r.html"), ("--png", "r.png")]
    more = [part for option, name in extra for part in (option, tmp_path / name)]
    answer = run(case, "-o", out, "--model", model, "--json", "--labels", "brats2020", *more)
    assert answer.exit_code == 0, answer.output
    result = json.loads(answer.stdout)
    assert "flair P1_flair.nii.gz" in answer.stderr
    assert "peak predicted" in answer.stderr
    assert result["label_scheme"] == "brats2020"
    assert result["files"]["t1ce"].endswith("P1_t1ce.nii.gz")
    assert set(result["volumes_ml"]) == {"WT", "TC", "ET"}
    assert result["peak_bytes"] > 0
    about = json.loads((tmp_path / "seg.json").read_text())
    assert about["label_scheme"] == "brats2020"
    assert about["model"] == "tiny"
    image, prob = nib.load(out), nib.load(tmp_path / "p.nii.gz")
    assert image.shape == SHAPE
    assert prob.shape == (*SHAPE, 3)
    assert np.array_equal(image.affine, nib.load(case / "P1_t1ce.nii.gz").affine)
    values = prob.get_fdata()
    assert values.min() >= 0
    assert values.max() <= 1
    whole = regions.to_regions(np.asarray(image.dataobj), "brats2020")[0]
    assert np.array_equal(whole, values[..., 0].astype(np.float32) >= 0.5)
    assert "edical device" in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert (tmp_path / "r.png").read_bytes()[:4] == b"\x89PNG"
    assert not list(tmp_path.glob(".*"))


def test_images_named_one_by_one_and_nrrd_out(model: Path, tmp_path: Path) -> None:
    case = case_of(tmp_path)
    named = [
        part for name in naming.MODALITIES for part in (f"--{name}", case / f"P1_{name}.nii.gz")
    ]
    answer = run(*named, "-o", tmp_path / "seg.nrrd", "--model", model)
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.splitlines()[0].endswith("seg.nrrd")


def test_dry_run_prints_the_plan_and_writes_nothing(model: Path, tmp_path: Path) -> None:
    case = case_of(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    answer = run(case, "-o", tmp_path / "s.nii.gz", "--model", model, "--dry-run", "--json")
    assert answer.exit_code == 0, answer.output
    plan = json.loads(answer.stdout)
    assert plan["tiles"] == 1
    assert plan["predicted_bytes"] > 0
    assert sorted(tmp_path.rglob("*")) == before


def test_memory_too_small_is_one_line(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.nii.gz"
    refused(run(case_of(tmp_path), "-o", out, "--model", model, "--max-memory", "20MiB"), "20 MiB")
    assert not out.exists()


def test_suspicious_header_is_a_warning_and_recorded(model: Path, tmp_path: Path) -> None:
    case, far = case_of(tmp_path), GRIDS["RAS"].copy()
    far[:3, 3] += 500
    for seed, name in enumerate(naming.MODALITIES):
        write_nifti(case / f"P1_{name}.nii.gz", head(seed), far)
    answer = run(case, "-o", tmp_path / "s.nii.gz", "--model", model, "--quiet")
    assert answer.exit_code == 0, answer.output
    assert "warning: " in answer.stderr
    assert "world's origin" in answer.stderr
    about = json.loads((tmp_path / "s.json").read_text())
    assert "world's origin" in about["warnings"][0]


def test_missing_modality_with_a_model_that_knows_it(tmp_path: Path) -> None:
    dropout = write_model(tmp_path / "dropout.safetensors", modality_dropout=True)
    case = case_of(tmp_path)
    (case / "P1_t2.nii.gz").unlink()
    out = tmp_path / "s.nii.gz"
    refused(run(case, "-o", out, "--model", dropout), "t2", "--allow-missing")
    answer = run(case, "-o", out, "--model", dropout, "--allow-missing")
    assert answer.exit_code == 0, answer.output
    assert "warning: t2 is missing" in answer.stderr
    assert json.loads((tmp_path / "s.json").read_text())["missing"] == ["t2"]


def broken_missing(case: Path) -> str:
    (case / "P1_flair.nii.gz").unlink()
    return "flair"


def broken_doubled(case: Path) -> str:
    write_nifti(case / "P1_t2w.nii.gz", head(9))
    return "2 files of t2"


def broken_2d(case: Path) -> str:
    write_nifti(case / "P1_t1.nii.gz", head(1)[:, :, 0])
    return "2D"


def broken_channels(case: Path) -> str:
    write_nifti(case / "P1_t1.nii.gz", np.stack([head(1), head(2)], axis=-1))
    return "4D"


def broken_nan(case: Path) -> str:
    values = head(1).astype(np.float32)
    values[5, 5, 4] = np.nan
    write_nifti(case / "P1_t1.nii.gz", values)
    return "NaN"


def broken_zero(case: Path) -> str:
    write_nifti(case / "P1_t1.nii.gz", np.zeros(SHAPE, np.int16))
    return "no image in it"


def broken_truncated(case: Path) -> str:
    path = case / "P1_t1.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])
    return "truncated"


def broken_not_nifti(case: Path) -> str:
    (case / "P1_t1.nii.gz").write_bytes(b"%PDF-1.7 not an image" * 40)
    return "P1_t1.nii.gz"


def broken_grid(case: Path) -> str:
    write_nifti(case / "P1_t1.nii.gz", head(1, (13, 10, 8)))
    return "not on one grid"


BROKEN = [
    *(broken_missing, broken_doubled, broken_2d, broken_channels, broken_nan, broken_zero),
    *(broken_truncated, broken_not_nifti, broken_grid),
]


@pytest.mark.parametrize("spoil", BROKEN, ids=lambda spoil: spoil.__name__)
def test_bad_input_is_one_line_and_writes_nothing(
    spoil: object, model: Path, tmp_path: Path
) -> None:
    case = case_of(tmp_path)
    said = spoil(case)
    out = tmp_path / "out"
    out.mkdir()
    arguments = ["--prob", out / "p.nii.gz", "--report", out / "r.html"]
    refused(run(case, "-o", out / "s.nii.gz", "--model", model, *arguments), said)
    assert not list(out.iterdir())


def test_native_case_is_refused_for_its_grids(model: Path, data: Path, tmp_path: Path) -> None:
    case = data / "brain" / "TCGA-FG-6692_native"
    refused(run(case, "-o", tmp_path / "s.nii.gz", "--model", model), "--resample-to", "shape")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "s.mha"], "give a name in"),
        (["-o", "s.nii.gz", "--report", "r.pdf"], "--report"),
        (["-o", "s.nii.gz", "--prob", "p.nrrd"], "--prob"),
        (["-o", "s.nii.gz", "--prob", "s.nii.gz"], "one file"),
        (["-o", "s.nii.gz", "--viewer"], "--report"),
        (["-o", "none/s.nii.gz"], "no such folder"),
        (["-o", "P1/P1_t1.nii.gz", "--overwrite"], "is an input"),
        (["-o", "s.nii.gz", "--tile", "32", "--overlap", "32"], "--overlap"),
        (["-o", "s.nii.gz", "--model", "no_such_model"], "no_such_model"),
        (["-o", "s.nii.gz", "--t1", "P1/P1_t1.nii.gz"], "not both"),
        (["-o", "s.nii.gz", "--allow-missing", "--resample-to", "t9"], ""),
    ],
)
def test_usage_errors(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    case_of(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    result = run("P1", "--model", model, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert sorted(tmp_path.rglob("*")) == before


def test_existing_outputs_are_kept_without_overwrite(model: Path, tmp_path: Path) -> None:
    case, out = case_of(tmp_path), tmp_path / "s.nii.gz"
    (tmp_path / "s.json").write_text("mine")
    refused(run(case, "-o", out, "--model", model), "already exists")
    assert (tmp_path / "s.json").read_text() == "mine"
    assert run(case, "-o", out, "--model", model, "--overwrite").exit_code == 0


def test_interrupted_run_leaves_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    case, out = case_of(tmp_path), tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(inference, "slabs", interrupted)
    answer = run(case, "-o", out / "s.nii.gz", "--model", model)
    assert answer.exit_code == 130
    assert not list(out.iterdir())


@pytest.mark.slow
def test_several_cases_go_into_a_folder_and_one_bad_case_stops_no_other(
    model: Path, tmp_path: Path
) -> None:
    folders = [write_case(tmp_path / name, name=name) for name in ("A", "B", "C")]
    (folders[1] / "B_t1.nii.gz").unlink()
    out = tmp_path / "out"
    answer = run(*folders, "-o", out, "--model", model, "--json", "--retries", 0)
    assert answer.exit_code == 3, answer.output
    result = json.loads(answer.stdout)
    assert (result["done"], result["failed"]) == (2, 1)
    assert "B: " in answer.stderr
    for name in ("A", "C"):
        assert nib.load(out / f"{name}_seg.nii.gz").shape == SHAPE
        about = json.loads((out / f"{name}_seg.json").read_text())
        assert about["case"] == name
    assert not list(out.glob("B_*"))
    refused(run(*folders, "-o", out, "--model", model, "--png", "x.png"), "--png")


def test_models_says_that_it_is_no_medical_device() -> None:
    answer = CliRunner().invoke(cli.main, ["models"])
    assert answer.exit_code == 0, answer.output
    assert "not a medical device" in answer.stdout


def test_bench_measures_one_tile(model: Path) -> None:
    arguments = ["bench", "--model", str(model), "--tile", "16", "--repeats", "2", "--json"]
    answer = CliRunner().invoke(cli.main, arguments)
    assert answer.exit_code == 0, answer.output
    result = json.loads(answer.stdout)
    assert result["parameters"] > 0
    assert result["gmacs"] > 0
    assert result["tile"] == [16, 16, 16]


def test_export_agrees_with_torch(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    target = tmp_path / "tiny.onnx"
    arguments = ["export", "--model", str(model), "-o", str(target), "--tile", "16"]
    answer = CliRunner().invoke(cli.main, arguments)
    assert answer.exit_code == 0, answer.output
    assert target.stat().st_size > 0
