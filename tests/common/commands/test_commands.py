# SPDX-License-Identifier: Apache-2.0
"""What verbs of all commands do alike: checks, plans, many inputs, lists, trained models."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fieldfare.common.batch import Item, Process
from fieldfare.common.commands import export, infer, models, train
from fieldfare.common.console.shared import (
    ConvertOptions,
    ExportOptions,
    InferOptions,
    JsonOptions,
    ParallelTrainingOptions,
    TrainingOptions,
)
from fieldfare.common.errors import InputError
from fieldfare.common.weights import Metric, ModelCard, read_card, save_with_page


def upper(item: Item, temporaries: Sequence[Path]) -> Mapping[str, float]:
    """Text in capitals; refuses digits."""
    text = item.inputs[0].read_text()
    if text.isdigit():
        raise InputError(f"{item.inputs[0]}: holds digits")
    temporaries[0].write_text(text.upper())
    return {"letters": len(text)}


def make_worker() -> Process:
    return upper


@pytest.fixture
def options(tmp_path: Path) -> InferOptions:
    return InferOptions(output=tmp_path / "out", quiet=True, as_json=True)


def write(folder: Path, **texts: str) -> list[Path]:
    """A file of each name."""
    paths = []
    for name, text in texts.items():
        paths.append(folder / f"{name}.txt")
        paths[-1].write_text(text)
    return paths


def run_many(inputs: Sequence[Path], options: InferOptions) -> None:
    infer.infer_many(
        inputs,
        make_worker,
        lambda path: (options.output / f"{path.stem}.up",),
        options,
        settings={"model": "m"},
        noun="texts",
    )


def test_many_inputs_go_into_a_folder_and_a_bad_one_fails_alone(
    tmp_path: Path, options: InferOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = write(tmp_path, a="one", b="2", c="three")
    with pytest.raises(SystemExit) as stopped:
        run_many(inputs, options)
    assert stopped.value.code == 3
    told = capsys.readouterr()
    assert json.loads(told.out)["done"] == 2
    assert "failed: b: " in told.err
    assert "holds digits" in told.err
    assert (options.output / "a.up").read_text() == "ONE"
    inputs[1].write_text("two")
    run_many(inputs, options)
    answer = json.loads(capsys.readouterr().out)
    assert (answer["done"], answer["skipped"]) == (1, 2)


def test_two_inputs_of_one_name_and_a_file_for_a_folder_are_refused(
    tmp_path: Path, options: InferOptions
) -> None:
    (tmp_path / "other").mkdir()
    twice = [*write(tmp_path, a="one"), *write(tmp_path / "other", a="two")]
    with pytest.raises(InputError, match="two texts are named a"):
        run_many(twice, options)
    options.output.write_text("")
    with pytest.raises(InputError, match="cannot be made into a folder"):
        run_many(twice[:1], options)


def test_a_dry_run_of_many_says_what_would_be_made_and_makes_nothing(
    tmp_path: Path, options: InferOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = [*write(tmp_path, a="one"), tmp_path / "missing.txt"]
    run_many(inputs, replace(options, dry_run=True))
    rows = json.loads(capsys.readouterr().out)["inputs"]
    assert [row["state"] for row in rows] == ["to do", "missing"]
    assert rows[0]["outputs"] == str(options.output / "a.up")
    assert not options.output.exists()


def test_outputs_are_refused_before_work(tmp_path: Path, options: InferOptions) -> None:
    source, old = write(tmp_path, source="text", old="text")
    link = tmp_path / "link.txt"
    link.symlink_to(source)
    new = tmp_path / "new.txt"
    infer.check_targets([source], {"--output": new, "--preview": None}, options)
    for targets, reason in (
        ({"--output": source}, "is an input"),
        ({"--output": link}, "is an input"),
        ({"--output": new, "--prob": new}, "--output and --prob are one file"),
        ({"--output": old}, "already exists"),
        ({"--output": tmp_path / "no" / "x.txt"}, "no such folder"),
    ):
        with pytest.raises(InputError, match=reason):
            infer.check_targets([source], targets, options)
    infer.check_targets([source], {"--output": old}, replace(options, overwrite=True))
    infer.check_targets([source], {"--output": old}, replace(options, dry_run=True))
    with pytest.raises(InputError, match="is an input"):
        infer.check_targets([source], {"--output": source}, replace(options, overwrite=True))


def test_a_plan_tells_its_time(options: InferOptions, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[int] = []
    seconds = infer.seconds_of(lambda: calls.append(1), count=1000)
    assert len(calls) == 2
    infer.show_plan({"tiles": 4}, options, seconds=seconds)
    assert json.loads(capsys.readouterr().out)["tiles"] == 4
    infer.show_plan({"tiles": 4}, replace(options, as_json=False), seconds=75.0)
    shown = capsys.readouterr().out
    assert shown == "tiles: 4\nabout 1 min 15 s; nothing was written\n"


def test_models_are_listed_with_what_else_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = ModelCard("m", "t", "One.", {}, data="cats", metrics=(Metric("dice", 0.5, "on dogs"),))
    path = save_with_page(tmp_path / "m.safetensors", {"w": torch.ones(2)}, card)
    monkeypatch.setattr(models, "available", lambda task: {"m": path} if task == "t" else {})
    more = {"costs": [{"depth": 1, "gmacs": 2.0}]}
    models.list_models("t", JsonOptions(as_json=True), more=lambda _: more)
    listed = json.loads(capsys.readouterr().out)["models"]
    assert listed[0]["costs"] == more["costs"]
    assert listed[0]["bytes"] == path.stat().st_size
    models.list_models("t", JsonOptions(), more=lambda _: more, baseline="x")
    text = capsys.readouterr().out
    assert "dice: 0.5 (on dogs)" in text
    assert "gmacs" in text
    assert text.endswith("x\n")
    models.list_models("none", JsonOptions())
    assert capsys.readouterr().out == "(none)\n"


def test_run_settings_are_what_the_options_say(tmp_path: Path) -> None:
    plain = TrainingOptions(output=tmp_path, device="cpu", steps=3, batch=2, learning_rate=0.1)
    found = {"steps": 3, "batch_size": 2, "learning_rate": 0.1, "seed": 0, "device": "cpu"}
    assert train.run_settings(plain) == found
    parallel = ParallelTrainingOptions(
        output=tmp_path, device="cpu", precision="bf16", devices=2, num_nodes=3, workers=4
    )
    settings = train.run_settings(parallel)
    assert [settings[name] for name in ("precision", "devices", "num_nodes", "workers")] == [
        "bf16", 2, 3, 4
    ]  # fmt: skip


def test_a_trained_model_has_its_card_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.is_first_process()
    card = ModelCard("m", "t", "One.", {}, date=train.today())
    target = train.save_trained(tmp_path, torch.nn.Linear(2, 2), card)
    assert read_card(target) == card
    assert "One." in (tmp_path / "model.md").read_text()
    train.tell_trained(target, TrainingOptions(output=tmp_path, as_json=True), more=1)
    assert json.loads(capsys.readouterr().out) == {"model": str(target), "more": 1}


def test_export_and_convert_say_what_they_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "m.onnx"
    export.export(lambda: 1e-6, ExportOptions(output=target, as_json=True), name="m")
    told = capsys.readouterr()
    assert json.loads(told.out) == {"output": str(target), "difference": 1e-6}
    assert told.err == "m: ONNX Runtime and torch agree within 1.0e-06\n"
    with pytest.raises(InputError, match=r"name it \*.safetensors"):
        export.convert(lambda: "", ConvertOptions(output=target))
    good = ConvertOptions(output=tmp_path / "m.safetensors", quiet=True)
    export.convert(lambda: "12 tensors", good)
    assert capsys.readouterr().out == f"{good.output}\n"
