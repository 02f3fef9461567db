# SPDX-License-Identifier: Apache-2.0
"""Experts as a user meets them: trained, run with fewer, explained, compressed, exported."""

import dataclasses
import json

import numpy as np
import pyarrow.parquet
import pytest
import torch
from click.testing import CliRunner
from judged_flows import make_flows
from labelled_captures import name, row, web, write_labels
from make_captures import pcap
from routed_models import CONFIG, KIND, classifier, dense, inputs, model_file, routed

from fieldfare.common.weights import ModelCard, load_model_file, read_card, save_model_file
from fieldfare.netsec.cli import main
from fieldfare.netsec.data.dataset import load_flows
from fieldfare.netsec.data.labels import read_labels
from fieldfare.netsec.inference.classifier import ClassifierConfig, load_classifier
from fieldfare.netsec.inference.start import Start, first_network
from fieldfare.netsec.networks.architectures import TASK
from fieldfare.netsec.networks.experts import ExpertsConfig
from fieldfare.netsec.networks.export import export_classifier


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def done(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A capture, labels and an untrained model with experts."""
    folder = tmp_path_factory.mktemp("experts")
    rows = []
    for split, first in (("train", 2000), ("val", 4000)):
        webs, names = range(first, first + 4), range(first + 100, first + 104)
        packets = [*(p for port in webs for p in web(port)), *(p for n in names for p in name(n))]
        (folder / f"{split}.pcap").write_bytes(pcap(packets))
        rows += [row(split, f"{split}.pcap", "WEB", port) for port in webs]
        rows += [row(split, f"{split}.pcap", "NAME", port) for port in names]
    write_labels(folder, rows)
    make_flows(folder / "c.pcap")
    model_file(folder / "model.safetensors")
    return folder


def many_labels(folder):
    """Enough flows to fit evidence."""
    rows = []
    for split, first in (("train", 2000), ("val", 4000)):
        webs, names = range(first, first + 12), range(first + 100, first + 112)
        packets = [*(p for port in webs for p in web(port)), *(p for n in names for p in name(n))]
        (folder / f"{split}.pcap").write_bytes(pcap(packets))
        rows += [row(split, f"{split}.pcap", "WEB", port) for port in webs]
        rows += [row(split, f"{split}.pcap", "NAME", port) for port in names]
    return write_labels(folder, rows)


def model_of(folder, labels):
    """An untrained model of the classes in labels.csv."""
    network, experts = routed("learned")
    classes = load_flows(read_labels(labels), quiet=True).classes
    network.classifier = torch.nn.Linear(16, len(classes))
    described = ClassifierConfig(
        "netfound", CONFIG.to_dict(), classes, ("addresses", "ports"), experts=experts.to_dict()
    )
    card = ModelCard("made", TASK, "Made up.", dataclasses.asdict(described))
    save_model_file(folder / "made.safetensors", network.state_dict(), card)
    return folder / "made.safetensors"


def test_experts_are_trained_kept_in_the_card_and_go_on(folder, tmp_path):
    labels, first = folder / "labels.csv", tmp_path / "first"
    few = ["--steps", 2, "--batch", 4, "--quiet"]
    dense = ["--preset", "netfound/tiny", "-o", tmp_path / "dense"]
    done("train", labels, *dense, *few)
    init = ["--init", tmp_path / "dense" / "model.safetensors"]
    done("train", labels, "-o", first, *init, "--experts", "random", "--expert-count", 4, *few)
    model = first / "model.safetensors"
    card = read_card(model)
    experts = card.config["experts"]
    assert (experts["kind"], experts["count"], experts["k"]) == ("random", 4, 2)
    assert "random experts, 4 a layer (split), 2 per token" in card.training
    tensors = load_model_file(model)[1]
    inner = tensors["base_transformer.encoder.layer.0.burst_encoder.mlp.layer.groups.0.inner"]
    assert inner.shape == (4, 128, 128)
    done("train", labels, "-o", tmp_path / "again", "--init", model, *few)
    assert read_card(tmp_path / "again" / "model.safetensors").config["experts"] == experts
    told = json.loads(
        done(
            "eval", labels, "--model", model, "--split", "val", "--experts-per-token", 1, "--json",
            "--quiet",
        ).stdout
    )  # fmt: skip
    assert 0 <= told["macro_f1"] <= 1
    shown = done(
        "eval", labels, "--model", model, "--split", "val", "--evasions", 1, "--neighbours",
        "--quiet",
    ).stdout  # fmt: skip
    assert "each flow's sender keeps the best of 1 disguises" in shown
    assert "singular kernel of the embeddings" in shown
    refused = run("train", labels, "-o", tmp_path / "no", "--init", model, "--experts", "learned")
    assert refused.exit_code == 2
    assert "has random experts already" in refused.stderr
    for wrong, why in (
        (["--experts", "learned", "--expert-start", "fresh"], "begin at zero"),
        (["--experts", "switch", "--experts-per-token", 2], "each token runs one"),
        (["--experts-per-token", 2], "needs --experts"),
        (["--experts", "learned", "--expert-count", 7, "--preset", "netfound/tiny"], "be cut"),
    ):
        refused = run("train", labels, "-o", tmp_path / "no", *wrong)
        assert refused.exit_code == 2, wrong
        assert why in refused.stderr


def test_training_begins_as_the_model_it_was_made_of(tmp_path):
    start = Start(KIND, CONFIG, dense().state_dict(), tmp_path, classes=("a", "b", "c"))
    experts = ExpertsConfig(kind="learned", count=4, k=4)
    network = first_network(KIND, CONFIG, ("a", "b", "c"), start, experts, keep_head=True).eval()
    with torch.inference_mode():
        assert (network(inputs()) - dense()(inputs())).abs().max() < 1e-6


def test_fewer_experts_are_run_and_refused_where_there_are_none(folder, tmp_path):
    answers = []
    for k in (1, 2, 4):
        target = tmp_path / f"{k}.parquet"
        done(
            "infer", folder / "c.pcap", "-o", target, "--model", folder / "model.safetensors",
            "--experts-per-token", k, "--quiet",
        )  # fmt: skip
        answers.append(pyarrow.parquet.read_table(target)["probability"].to_pylist())
    assert answers[0] != answers[1] != answers[2]
    for model, why in (
        (model_file(tmp_path / "lookup.safetensors", "lookup", k=1), "no number of experts"),
        ("netfound_tiny", "has no experts"),
    ):
        refused = run(
            "infer", folder / "c.pcap", "-o", tmp_path / "x.parquet", "--model", model,
            "--experts-per-token", 2,
        )  # fmt: skip
        assert refused.exit_code == 2
        assert why in refused.stderr
    assert not (tmp_path / "x.parquet").exists()


def test_explain_tells_which_experts_ran_in_table_json_and_page(folder, tmp_path):
    target, page = tmp_path / "e.parquet", tmp_path / "e.html"
    answer = done(
        "infer", folder / "c.pcap", "-o", target, "--model", folder / "model.safetensors",
        "--explain", "--json", "--report", page, "--quiet",
    )  # fmt: skip
    told = json.loads(answer.stdout)["experts"]
    rows = pyarrow.parquet.read_table(target).to_pylist()
    seen = [found for found in rows if found["expert_tokens"] is not None]
    assert {found["ffns_per_token"] for found in seen} == {2.0}
    assert {len(found["expert_tokens"]) for found in seen} == {4 * 4 + 4}
    for found in seen:
        ran = np.array(found["expert_tokens"][:16]).reshape(4, 4)
        assert ran.sum(axis=1).tolist() == [2 * n for n in found["expert_tokens"][16:]]
    assert sum(entry["flows"] for entry in told["classes"].values()) == len(seen)
    assert told["kind"] == "learned"
    assert told["layers"][0] == "layer.0.burst_encoder.mlp"
    for entry in told["classes"].values():
        assert np.array(entry["share"]).sum(axis=1) == pytest.approx([2] * 4, abs=1e-3)
    text = page.read_text()
    assert 'id="experts"' in text
    assert text.count('class="experts"') == len(told["classes"])
    for output, model, why in (
        ("x.csv", folder / "model.safetensors", "cannot hold --explain"),
        ("x.parquet", "netfound_tiny", "has no experts"),
    ):
        refused = run(
            "infer", folder / "c.pcap", "-o", tmp_path / output, "--model", model, "--explain"
        )
        assert refused.exit_code == 2
        assert why in refused.stderr


def test_unused_experts_leave_without_changing_a_bit(folder, tmp_path):
    model = model_file(tmp_path / "many.safetensors", "learned", count=16, k=1)
    small = tmp_path / "small.safetensors"
    command = ["compress", model, "--for", folder / "c.pcap", "-o", small, "--quiet"]
    told = json.loads(done(*command, "--json").stdout)
    assert told["largest_difference"] == 0
    assert told["same_label"] == 1
    assert told["bytes"] < told["bytes_before"]
    held = read_card(small).config["experts"]["held"]
    assert min(experts for experts, _ in held.values()) < 16
    tables = []
    for number, file in enumerate((model, small)):
        target = tmp_path / f"{number}.parquet"
        done("infer", folder / "c.pcap", "-o", target, "--model", file, "--quiet")
        tables.append(pyarrow.parquet.read_table(target).drop_columns(["model"]))
    assert tables[0].equals(tables[1])
    assert run(*command).exit_code == 2  # it is there


def test_experts_are_merged_and_fewer_hidden_units_kept(folder, tmp_path):
    merged, narrow = tmp_path / "merged.safetensors", tmp_path / "narrow.safetensors"
    model, capture = folder / "model.safetensors", folder / "c.pcap"
    done("compress", model, "--for", capture, "--expert-count", 2, "-o", merged, "--quiet")
    held = read_card(merged).config["experts"]["held"]
    assert sum(matrices for _, matrices in held.values()) == 2 * len(held)
    assert {experts for experts, _ in held.values()} == {4}
    found, _ = load_classifier(str(merged))
    assert found.parameters() < load_classifier(str(model))[0].parameters()
    told = json.loads(
        done("compress", model, "--for", capture, "--macs", 0.3, "-o", narrow, "--json").stdout
    )
    assert told["done"] == "1 experts per token"
    assert read_card(narrow).config["experts"]["k"] == 1
    told = json.loads(
        done(
            "compress", "netfound_tiny", "--for", capture, "--macs", 0.6, "-o", narrow, "--json",
            "--overwrite",
        ).stdout
    )  # fmt: skip
    assert read_card(narrow).config["network"]["intermediate_size"] == 153
    assert told["bytes"] < told["bytes_before"]
    for arguments, why in (
        ([model], "say what traffic"),
        (["netfound_tiny", "--for", capture], "has no experts"),
        (["traffic_pair", "--for", capture, "--macs", 0.5], "holds two networks"),
        ([model, "--for", capture, "--macs", 0.1], "is none"),
        ([model, "--for", tmp_path / "no.pcap"], "no.pcap"),
    ):
        refused = run("compress", *arguments, "-o", tmp_path / "x.safetensors")
        assert refused.exit_code == 2, arguments
        assert why in refused.stderr
    assert not (tmp_path / "x.safetensors").exists()


def test_what_lies_beside_the_network_is_fitted_anew(tmp_path):
    labels = many_labels(tmp_path)
    model, target = model_of(tmp_path, labels), tmp_path / "fitted.safetensors"
    told = json.loads(
        done("compress", model, "--fit-to", labels, "--macs", 0.25, "-o", target, "--json").stdout
    )
    assert told["familiarity"] is True
    assert told["flows"] == 24
    found, card = load_classifier(str(target))
    assert found.evidence is not None
    assert card.config["experts"]["k"] == 1
    assert card.metrics == ()


@pytest.mark.slow
def test_onnx_runtime_runs_experts_as_torch_does(tmp_path):
    pytest.importorskip("onnxruntime")
    found = classifier("moe++")
    target = tmp_path / "experts.onnx"
    difference = export_classifier(found.architecture, found.network, found.network_config, target)
    assert difference < 1e-4
