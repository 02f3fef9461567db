# SPDX-License-Identifier: Apache-2.0
"""Whether a case is like what a network knows: what is seen, what is said, what --strict does."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from head_cases import case_of, written
from sample_networks import TINY, write_model

from fieldfare.common.trust.knowledge import PART, read_knowledge
from fieldfare.common.weights import load_model_file, save_model_file
from fieldfare.medical.cli import main
from fieldfare.medical.data import corruptions
from fieldfare.medical.inference.predict import Predictor, load_predictor
from fieldfare.medical.inference.trust import Observer, layers_of, signs_of
from fieldfare.medical.networks.config import PRESETS
from fieldfare.medical.networks.create import create_network
from fieldfare.medical.training.knowledge import learn_knowledge


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network that knows heads as `case_of` makes them."""
    path = write_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")
    predictor, card = load_predictor(str(path), device="cpu", precision="fp32")
    knowledge = learn_knowledge(
        predictor,
        [case_of(seed) for seed in range(12)],
        [case_of(seed) for seed in range(20, 28)],
        group="heads",
        right=0.0,  # untrained
    )
    save_model_file(path, load_model_file(path)[1], card, {PART: knowledge.to_tensors()})
    return path


def infer(*arguments: object) -> object:
    return CliRunner().invoke(main, ["infer", *map(str, arguments)])


def known_case(folder: Path) -> Path:
    """Of the kind that `model` knows, and not seen by it."""
    return written(folder, case_of(40).images)


def strange_case(folder: Path) -> Path:
    """All images one smooth ramp: no network of random heads has seen that."""
    images = case_of(40).images
    ramp = 1 + np.arange(images.shape[1])[:, None, None] ** 3.0
    return written(folder, np.where(images != 0, ramp, 0))


def test_the_layers_of_every_preset_are_there() -> None:
    for name, config in [*PRESETS.items(), ("tiny", TINY)]:
        if name in ("reversible_wide", "reversible_deep", "reversible"):
            continue  # as reversible_small, only larger
        modules = dict(create_network(config).named_modules())
        layers = layers_of(config)
        assert len(set(layers)) == 2, name
        assert set(layers) <= set(modules), name


def test_a_network_whose_answers_are_wrong_is_at_home_nowhere(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.safetensors")
    predictor, _ = load_predictor(str(path), device="cpu", precision="fp32")
    cases = [case_of(seed) for seed in range(8)]
    with pytest.raises(ValueError, match="of the model's own kind"):
        learn_knowledge(predictor, cases, cases[:5], group="heads", right=1.01)


def test_looking_changes_no_answer_and_does_not_depend_on_how_tiles_come_together() -> None:
    network = create_network(TINY)
    predictor = Predictor(network, device="cpu", precision="fp32")
    rng = np.random.default_rng(0)
    tiles = rng.normal(size=(6, 4, 16, 16, 16)).astype(np.float32)
    plain = predictor(tiles)
    features = []
    for parts in (1, 2, 6):
        with Observer(predictor, layers_of(TINY)) as observer:
            answers = [observer(part) for part in np.split(tiles, parts)]
        assert np.allclose(np.concatenate(answers), plain, atol=1e-6)
        features.append(observer.features())
    for other in features[1:]:
        for one, two in zip(features[0], other, strict=True):
            assert np.allclose(one, two, atol=1e-5)


def test_after_looking_the_network_is_as_it_was() -> None:
    predictor = Predictor(create_network(TINY), device="cpu", precision="fp32")
    with Observer(predictor, layers_of(TINY)):
        pass
    assert not any(module._forward_hooks for module in predictor.network.modules())


def test_signs_are_what_the_probabilities_promise() -> None:
    maps = np.zeros((3, 10, 10, 10), np.float32)
    maps[0, :5] = 0.8  # 500 voxels: 2 * 400 / (400 + 500)
    maps[0, 5:] = 0.1  # and 50 voxels' worth outside
    sure, core, size = signs_of(maps, (2.0, 2.0, 2.0))[0]
    assert sure == pytest.approx(2 * 400 / (400 + 50 + 500), rel=1e-5)
    assert core == 0
    assert size == pytest.approx(np.log1p(4.0))


def test_a_known_case_is_said_to_be_and_a_strange_one_warned_of(
    model: Path, tmp_path: Path
) -> None:
    predictor, _ = load_predictor(str(model), device="cpu", precision="fp32")
    assert predictor.knowledge is not None
    told = []
    for case in (known_case(tmp_path / "known"), strange_case(tmp_path / "strange")):
        result = infer(case, "-o", tmp_path / f"{case.name}.nii.gz", "--model", model, "--json")
        assert result.exit_code == 0, result.output
        answer = json.loads(result.stdout)
        told.append(answer["trust"])
        sidecar = json.loads((tmp_path / f"{case.name}.json").read_text())
        assert sidecar["trust"] == answer["trust"]
        warned = [line for line in result.stderr.splitlines() if "at home" in line]
        assert len(warned) == answer["trust"]["alarm"] == (case.name == "strange")
        assert sum("at home" in text for text in sidecar["warnings"]) == len(warned)
    assert told[0]["distance"] < 1 < told[1]["distance"]
    assert told[0]["quality"] == "Dice of the whole tumour"


def test_strict_refuses_and_writes_nothing(model: Path, tmp_path: Path) -> None:
    case = strange_case(tmp_path / "strange")
    result = infer(case, "-o", tmp_path / "s.nii.gz", "--model", model, "--strict")
    assert result.exit_code == 2
    assert "--strict" in result.stderr
    assert not (tmp_path / "s.nii.gz").exists()


def test_of_several_cases_strict_stops_only_the_strange_one(model: Path, tmp_path: Path) -> None:
    known, odd = known_case(tmp_path / "known"), strange_case(tmp_path / "strange")
    result = infer(known, odd, "-o", tmp_path / "out", "--model", model, "--strict")
    assert result.exit_code == 3  # some failed
    assert "at home; nothing was written, as --strict was given" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").glob("*_seg.nii.gz")) == [
        "known_seg.nii.gz"
    ]


def test_a_model_that_says_nothing_gives_no_judgement(tmp_path: Path) -> None:
    plain = write_model(tmp_path / "plain.safetensors")
    case = known_case(tmp_path / "P1")
    result = infer(case, "-o", tmp_path / "s.nii.gz", "--model", plain, "--json", "--strict")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["trust"] is None


def test_the_judgement_is_the_same_whatever_the_batch(model: Path, tmp_path: Path) -> None:
    case = known_case(tmp_path / "P1")
    told = []
    for batch in (1, 3):
        options = ("--tile", 32, "--batch", batch, "--overwrite", "--json")
        result = infer(case, "-o", tmp_path / "s.nii.gz", "--model", model, *options)
        told.append(json.loads(result.stdout)["trust"])
    assert told[0] == told[1]


@pytest.mark.parametrize("kind", corruptions.CORRUPTIONS)
def test_a_corruption_changes_images_and_leaves_background_and_input_alone(kind: str) -> None:
    images = case_of(0).images
    before = images.copy()
    found = corruptions.CORRUPTIONS[kind](np.random.default_rng(1), images)
    assert np.array_equal(images, before), "the input was changed"
    assert found.shape != images.shape or not np.array_equal(found, images)
    assert np.isfinite(found).all()
    if kind not in ("scaled", "mirrored"):
        assert np.array_equal((found != 0).any(axis=0), (images != 0).any(axis=0))
    again = corruptions.CORRUPTIONS[kind](np.random.default_rng(1), images)
    assert np.array_equal(found, again)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["TCGA-FG-6692", "TCGA-DU-7294", "BraTS-GLI-00001-000"])
def test_real_gliomas_are_no_alarm_to_the_default_model(
    data: Path, tmp_path: Path, name: str
) -> None:
    result = infer(data / "brain" / name, "-o", tmp_path / "s.nii.gz", "--json", "--quiet")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["trust"]["alarm"] is False
    assert told["warnings"] == []


def test_knowledge_survives_the_file(model: Path) -> None:
    knowledge = read_knowledge(model)
    assert knowledge is not None
    assert knowledge.groups == ("heads",)
    assert knowledge.samples == 12
    assert torch.is_tensor(knowledge.to_tensors()["about"])
