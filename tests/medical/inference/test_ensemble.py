# SPDX-License-Identifier: Apache-2.0
"""Several networks together: the mean of their probabilities, on the grid of the first."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sample_networks import Thresholds, write_model
from sample_volumes import GRIDS, head, write_nifti

from fieldfare.common.errors import InputError
from fieldfare.medical.cli import main
from fieldfare.medical.commands import infer as command
from fieldfare.medical.data.cases import Case, find_case
from fieldfare.medical.inference import run as inference
from fieldfare.medical.inference.predict import Predictor, load_predictor, split_names
from fieldfare.medical.inference.run import InferSettings
from fieldfare.medical.options import ENSEMBLE, ENSEMBLE_STEPS, InferOptions


def case_on(folder: Path) -> Case:
    """Four heads with one brain, 1 mm a voxel and more."""
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(("t1", "t1ce", "t2", "flair")):
        write_nifti(folder / f"P_{name}.nii.gz", head(seed), GRIDS["LPS"])
    return find_case(folder)


def together(*networks: torch.nn.Module) -> Predictor:
    first, *others = (Predictor(one, device="cpu", precision="fp32") for one in networks)
    first.others = tuple(others)
    return first


def predicted(case: Case, predictor: Predictor) -> np.ndarray:
    settings = InferSettings()
    job = inference.open_case(case, settings, predictor)
    return inference.predict_together(job, predictor, inference.plan(job, settings, predictor))[0]


def test_the_mean_of_three_is_the_mean(tmp_path: Path) -> None:
    case = case_on(tmp_path)
    networks = [Thresholds(above=above) for above in (-0.5, 0.0, 0.5)]
    apart = [predicted(case, together(one)) for one in networks]
    mean = predicted(case, together(*networks))
    assert np.allclose(mean, np.mean(apart, axis=0), atol=1e-6)
    assert 0.1 < (mean > 0.5).mean() < 0.9


def test_a_network_of_another_spacing_is_brought_onto_the_grid_of_the_first(tmp_path: Path) -> None:
    case = case_on(tmp_path)
    fine, coarse = Thresholds(spacing=1.0), Thresholds(spacing=2.0)
    assert predicted(case, together(fine, coarse)).shape == predicted(case, together(fine)).shape
    assert predicted(case, together(coarse, fine)).shape == predicted(case, together(coarse)).shape


def test_slices_and_volumes_go_together(tmp_path: Path) -> None:
    case = case_on(tmp_path)
    volumes, slices = Thresholds(), Thresholds(ndim=2)
    mean = predicted(case, together(volumes, slices))
    assert mean.shape == predicted(case, together(volumes)).shape
    assert slices.calls
    assert all(len(shape) == 4 for shape in slices.calls)


def test_progress_counts_the_tiles_of_all(tmp_path: Path) -> None:
    case = case_on(tmp_path)
    predictor = together(Thresholds(), Thresholds(ndim=2))
    settings = InferSettings()
    job = inference.open_case(case, settings, predictor)
    plan = inference.plan(job, settings, predictor)
    seen: list[int] = []
    inference.predict_together(job, predictor, plan, progress=lambda done, total: seen.append(done))
    assert seen == sorted(seen)
    assert seen[-1] == plan.tiles_in_all > plan.tiles


def test_names_are_split_at_plus_but_files_are_not(tmp_path: Path) -> None:
    assert split_names("one+two") == ["one", "two"]
    assert split_names("one") == ["one"]
    odd = write_model(tmp_path / "a+b.safetensors")
    assert split_names(str(odd)) == [str(odd)]


def test_the_option_stands_for_both_packaged_models_and_their_postprocessing(
    tmp_path: Path,
) -> None:
    given = InferOptions(output=tmp_path, ensemble=True)
    both = command._together(given)
    assert (both.model, both.postprocess) == (ENSEMBLE, ENSEMBLE_STEPS)
    assert {name.split("_phantom")[0] for name in both.model.split("+")} == {
        "reversible_unet",
        "resunet_aspp",
    }
    chosen = replace(given, postprocess="fill-holes")
    assert command._together(chosen).postprocess == "fill-holes"
    plain = InferOptions(output=tmp_path)
    assert command._together(plain) is plain


def test_the_option_with_another_model_is_refused(tmp_path: Path) -> None:
    case_on(tmp_path / "P")
    arguments = ["infer", tmp_path / "P", "-o", tmp_path / "s.nii.gz", "--ensemble"]
    arguments += ["--model", "resunet_aspp_phantom"]
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 2
    assert "--ensemble: of the packaged models" in done.stderr
    assert not (tmp_path / "s.nii.gz").exists()


def test_an_ensemble_is_loaded_by_names_and_says_so(tmp_path: Path) -> None:
    one, two = (write_model(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    predictor, card = load_predictor(f"{one}+{two}", device="cpu", precision="fp32")
    assert len(predictor.others) == 1
    assert card.name == "one+two"
    with pytest.raises(InputError, match="none"):
        load_predictor(f"{one}+none.safetensors")
