# SPDX-License-Identifier: Apache-2.0
"""`--guard`: what is compared, what the score is, and what the command says and refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from head_cases import case_of, written
from sample_networks import Thresholds, write_model

from fieldfare.common.errors import InputError
from fieldfare.common.trust.guard import PART, Guard, read_guard
from fieldfare.common.weights import load_model_file, save_model_file
from fieldfare.medical.cli import main
from fieldfare.medical.data.preparation import prepare
from fieldfare.medical.inference import guard
from fieldfare.medical.inference.predict import Predictor, load_predictor
from fieldfare.medical.training.guard import answers_of, learn_guard

ALWAYS, NEVER = 1.1, -1.1
"""Thresholds over and under every agreement."""


def guarded(path: Path, threshold: float) -> Path:
    """An untrained network that keeps a guard."""
    write_model(path)
    card, tensors = load_model_file(path)
    kept = Guard(len(guard.TURNS), 4, 0.8, threshold, 0.05)
    save_model_file(path, tensors, card, {PART: kept.to_tensors()})
    return path


def infer(*arguments: object) -> object:
    return CliRunner().invoke(main, ["infer", *map(str, arguments)])


def prepared_case(seed: int = 0):
    case = case_of(seed)
    return prepare(case.images, case.affine, 1.0)


def test_neighbours_are_the_same_every_time_little_changed_and_0_outside() -> None:
    prepared = prepared_case()
    for number, axes in enumerate(guard.TURNS):
        one, two = (guard.neighbour(prepared, number).images for _ in range(2))
        assert np.array_equal(one, two)
        back = np.flip(one, axes)
        assert np.array_equal(back != 0, prepared.images != 0)
        inside = prepared.images != 0
        change = (back - prepared.images)[inside].std()
        assert 0.5 * guard.NOISE < change < 2 * (guard.NOISE + guard.GAIN)
    assert len(set(guard.TURNS)) == len(guard.TURNS)


def test_a_network_that_turns_with_its_input_agrees_with_its_neighbours_where_it_is_sure() -> None:
    sure = Predictor(Thresholds(above=-100.0), device="cpu", precision="fp32")  # tumour everywhere
    features, scores = _asked(sure, prepared_case())
    assert scores.shape[:2] == (5, 4)
    assert torch.all(scores[:, 3] == 1)
    found = guard.judge(Guard(4, 4, 1.0, 0.9, 0.05), (features, scores))
    assert found.agreement == pytest.approx(1, abs=1e-3)
    assert not found.alarm


def test_a_tumour_that_the_neighbours_do_not_have_does_not_hold() -> None:
    prepared = prepared_case()
    whole = np.ones((3, *prepared.images.shape[1:]), np.float32)
    answers = guard.neighbours(
        prepared, ([np.ones((1, 4))], whole), lambda one: ([np.ones((1, 4))], 0 * whole)
    )
    found = guard.judge(Guard(4, 4, 1.0, 0.5, 0.05), answers)
    assert found.agreement == 0
    assert found.alarm
    # A half of it that they have, in the frame of the case and not in their own:
    half = whole.copy()
    half[:, half.shape[1] // 2 :] = 0
    turned = iter(guard.TURNS)
    answers = guard.neighbours(
        prepared,
        ([np.ones((1, 4))], half),
        lambda one: ([np.ones((1, 4))], np.flip(half, next(turned))),
    )
    assert guard.judge(Guard(4, 4, 1.0, 0.5, 0.05), answers).agreement == 1


def _asked(predictor: Predictor, prepared):
    """Answers of a pointwise network, which has no layers to look at."""

    def ask(one):
        found = predictor(one.images[None])[0]
        np.minimum(found[1], found[0], out=found[1])
        np.minimum(found[2], found[1], out=found[2])
        return [np.ones((1, 4))], found

    return guard.neighbours(prepared, ask(prepared), ask)


def test_class_scores_are_probabilities_of_exclusive_classes() -> None:
    scores = guard.class_scores(np.array([[0.9], [0.6], [0.1]], np.float32))
    assert scores[:, 0] == pytest.approx([0.1, 0.3, 0.5, 0.1])


def test_where_no_answer_finds_tumour_the_brain_is_compared() -> None:
    none = Predictor(Thresholds(above=100.0), device="cpu", precision="fp32")
    prepared = prepared_case()
    features, scores = _asked(none, prepared)
    assert scores.shape[2] == np.count_nonzero((prepared.images != 0).any(axis=0))
    assert guard.judge(Guard(4, 4, 1.0, 0.9, 0.05), (features, scores)).agreement == 1


def test_a_guard_that_was_learnt_flags_its_share_of_the_clean_cases(tmp_path: Path) -> None:
    predictor, _ = load_predictor(str(write_model(tmp_path / "m.safetensors")), device="cpu")
    cases = [case_of(seed) for seed in range(6)]
    learnt = learn_guard(predictor, cases, rank=3, false_alarms=0.2)
    found = [
        guard.judge(learnt, answers_of(predictor, prepare(case.images, case.affine, 1.0)))
        for case in cases
    ]
    assert sum(one.alarm for one in found) == 1  # of the six; the quantile lies between two
    assert learnt.neighbours == 4


@pytest.mark.parametrize("threshold", [ALWAYS, NEVER])
def test_the_command_says_whether_the_answer_holds(tmp_path: Path, threshold: float) -> None:
    model = guarded(tmp_path / "m.safetensors", threshold)
    case = written(tmp_path / "P1", case_of(40).images)
    plain = infer(case, "-o", tmp_path / "p.nii.gz", "--model", model, "--json")
    assert json.loads(plain.stdout)["guard"] is None
    done = infer(case, "-o", tmp_path / "s.nii.gz", "--model", model, "--guard", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["guard"]["alarm"] == (threshold == ALWAYS)
    assert told["guard"]["threshold"] == threshold
    lines = [line for line in done.stderr.splitlines() if "changes when the images" in line]
    assert len(lines) == (threshold == ALWAYS)
    assert ", 5 times, overlap" in done.stderr
    assert json.loads((tmp_path / "s.json").read_text())["guard"] == told["guard"]
    labels = [(tmp_path / name).read_bytes() for name in ("p.nii.gz", "s.nii.gz")]
    assert labels[0] == labels[1], "the guard changed the labels"


def test_strict_makes_it_an_error_and_writes_nothing(tmp_path: Path) -> None:
    model = guarded(tmp_path / "m.safetensors", ALWAYS)
    case = written(tmp_path / "P1", case_of(40).images)
    arguments = ("-o", tmp_path / "s.nii.gz", "--model", model, "--guard", "--strict")
    done = infer(case, *arguments)
    assert done.exit_code == 2
    assert "nothing was written, as --strict was given" in done.stderr
    assert not (tmp_path / "s.nii.gz").exists()


def test_in_a_folder_the_guard_is_in_the_manifest(tmp_path: Path) -> None:
    model = guarded(tmp_path / "m.safetensors", NEVER)
    case, out = written(tmp_path / "P1", case_of(40).images), tmp_path / "out"
    assert infer(case, "-o", out, "--model", model, "--guard", "--quiet").exit_code == 0
    assert "agreement" in (out / "manifest.jsonl").read_text()
    assert json.loads((out / "P1_seg.json").read_text())["guard"]["alarm"] is False


@pytest.mark.parametrize("many", [False, True])
def test_a_model_without_a_guard_is_refused_before_work(tmp_path: Path, many: bool) -> None:
    model = write_model(tmp_path / "m.safetensors")
    case = written(tmp_path / "P1", case_of(40).images)
    output = tmp_path / ("out" if many else "s.nii.gz")
    done = infer(case, "-o", output, "--model", model, "--guard")
    assert done.exit_code == 2
    assert "--guard: " in done.stderr
    assert "keeps no guard" in done.stderr
    assert not output.exists()
    assert read_guard(model) is None
    with pytest.raises(InputError, match="keeps no guard"):
        load_predictor(str(model), guarded=True)
