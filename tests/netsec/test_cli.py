# SPDX-License-Identifier: Apache-2.0
"""net-traffic from labelled captures to a table of labelled flows, as a user would."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from click.testing import CliRunner
from labelled_captures import name, row, web, write_labels
from make_captures import ethernet, ipv4, pcap, udp

from fieldfare.common.weights import load_model_file, read_card, save_model_file
from fieldfare.netsec.cli import main
from fieldfare.netsec.networks.netmamba import NetMambaClassifier, NetMambaConfig

LABEL_COLUMNS = [
    "label", "probability", "confidence", "port_share", "familiarity", "model",
]  # fmt: skip


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def done(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Captures, labels.csv, and a model that was trained on them for a moment."""
    folder = tmp_path_factory.mktemp("work")
    rows = []
    splits = (("train", 2000, 12), ("val", 4000, 12), ("test", 6000, 4))
    for split, first, count in splits:
        webs = range(first, first + count)
        names = range(first + 100, first + 100 + count)
        packets = [*(p for port in webs for p in web(port)), *(p for n in names for p in name(n))]
        (folder / f"{split}.pcap").write_bytes(pcap(packets))
        rows += [row(split, f"{split}.pcap", "WEB", port) for port in webs]
        rows += [row(split, f"{split}.pcap", "NAME", port) for port in names]
    labels = write_labels(folder, rows)
    settings = ["--steps", 30, "--batch", 8, "--learning-rate", 3e-3, "--quiet"]
    preset = ["--preset", "netfound/tiny", "--quiet"]
    done("pretrain", folder / "train.pcap", "-o", folder / "pre", "--steps", 2, *preset)
    start = folder / "pre" / "model.safetensors"
    done("train", labels, "-o", folder / "run", "--init", start, *settings)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return folder / "run" / "model.safetensors"


def test_the_card_says_what_was_trained_on_what(folder, model):
    card = read_card(model)
    assert card.config["classes"] == ["NAME", "WEB"]
    assert card.config["hidden"] == ["addresses", "ttl", "numbers", "checksums", "ports"]
    assert card.config["optional"] == ["ports"]
    assert "24 flows" in card.data
    assert "24 flows for validation, 8 for test" in card.split
    assert card.training.endswith("from model.safetensors")
    page = (folder / "run" / "model.md").read_text(encoding="utf-8")
    assert "| Limits | Knows the classes" in page


def test_all_formats_hold_the_same_labels(folder, model, tmp_path):
    told = {}
    for ending in ("parquet", "csv", "jsonl"):
        target = tmp_path / f"f.{ending}"
        answer = done("infer", folder / "test.pcap", "-o", target, "--model", model, "--json")
        told = json.loads(answer.stdout)
    rows = pyarrow.parquet.read_table(tmp_path / "f.parquet").to_pylist()
    assert list(rows[0])[-6:] == LABEL_COLUMNS
    assert rows == [json.loads(line) for line in (tmp_path / "f.jsonl").read_text().splitlines()]
    assert rows == pyarrow.csv.read_csv(tmp_path / "f.csv").to_pylist()
    assert told["flows"] == len(rows) == 8
    assert told["labels"] == {"WEB": 4, "NAME": 4}
    assert told["packets"] == 12
    for found in rows:
        assert found["label"] == ("WEB" if found["protocol"] == 6 else "NAME")
        assert 0.5 <= found["probability"] <= 1
        assert 0.5 <= found["confidence"] <= 1


def test_flows_go_to_standard_output_as_json_lines(folder, model, tmp_path):
    for verb in (["infer", "--model", model], ["flows"]):
        target = tmp_path / f"{verb[0]}.jsonl"
        done(*verb, folder / "test.pcap", "-o", target)
        piped = done(*verb, folder / "test.pcap", "-o", "-")
        assert piped.stdout == target.read_text()
        assert "8 flows of 12 packets" in piped.stderr


def test_unknown_embeddings_and_first_packets(folder, model, tmp_path):
    target = tmp_path / "f.parquet"
    card, tensors = load_model_file(model)
    tensors["classifier.weight"] *= 0.1
    card = dataclasses.replace(card, config=card.config | {"temperature": 1.0})
    model = tmp_path / "shy.safetensors"
    save_model_file(model, tensors, card)
    done("infer", folder / "test.pcap", "-o", target, "--model", model)
    confidence = pyarrow.parquet.read_table(target)["confidence"].to_pylist()
    answer = run(
        "infer", folder / "test.pcap", "-o", target, "--model", model, "--unknown-below", 0.5,
        "--overwrite",
    )  # fmt: skip
    assert answer.exit_code == 2
    assert "run: knows no familiarity of flows" in answer.stderr
    done(
        "infer", folder / "test.pcap", "-o", target, "--model", model, "--embeddings",
        "--first-packets", 2, "--overwrite",
    )  # fmt: skip
    rows = pyarrow.parquet.read_table(target).to_pylist()
    assert {found["familiarity"] for found in rows} == {None}
    assert {found["port_share"] for found in rows} == {0}
    assert {len(found["embedding"]) for found in rows} == {128}
    done(
        "infer", folder / "test.pcap", "-o", target, "--model", model, "--first-packets", 1,
        "--overwrite",
    )  # fmt: skip
    first = pyarrow.parquet.read_table(target)
    assert max(first["packets_bwd"].to_pylist()) == 1  # totals are of the whole flow
    assert first["confidence"].to_pylist() != confidence
    done(
        "infer", folder / "test.pcap", "-o", target, "--model", model, "--early", 1, "--overwrite",
    )  # fmt: skip
    early = pyarrow.parquet.read_table(target)
    assert early["packets_fwd"].to_pylist() == [1] * 8
    assert early["packets_bwd"].to_pylist() == [0] * 8
    assert sorted(early["confidence"].to_pylist()) == sorted(first["confidence"].to_pylist())
    csv = tmp_path / "f.csv"
    answer = run("infer", folder / "test.pcap", "-o", csv, "--model", model, "--embeddings")
    assert answer.exit_code == 2
    assert "cannot hold embeddings" in answer.stderr


def test_flows_unlike_those_of_validation_are_unknown(folder, model, tmp_path):
    target = tmp_path / "f.jsonl"
    strange = [(1.0 + i, ethernet(ipv4(udp(7, 9000 + i, bytes(range(i, 90))), 17))) for i in (1, 2)]
    capture = tmp_path / "c.pcap"
    capture.write_bytes(pcap([*web(7000), *name(7001), *strange]))

    def labels(*more):
        done("infer", capture, "-o", target, "--model", model, "--overwrite", *more)
        rows = [json.loads(line) for line in target.read_text().splitlines()]
        return {found["src_port"]: found for found in rows}

    rows = labels()
    assert [rows[port]["label"] for port in (7000, 7001, 7)] == ["WEB", "NAME", "unknown"]
    assert rows[7]["familiarity"] < 0.09 <= rows[7000]["familiarity"]
    for found in rows.values():
        share = found["confidence"] - found["probability"]
        assert found["port_share"] == pytest.approx(share, abs=2e-6)
    assert labels("--unknown-below", 0)[7]["label"] != "unknown"


def test_a_recording_of_other_protocols_is_warned_of_or_refused(folder, model, tmp_path):
    target, capture = tmp_path / "f.parquet", tmp_path / "c.pcap"
    payload = bytes(range(40, 140))
    strange = [(float(i), ethernet(ipv4(udp(7, 9000 + i, payload[i:]), 17))) for i in range(1, 13)]
    capture.write_bytes(pcap([*web(7000), *strange]))
    answer = done("infer", capture, "-o", target, "--model", model, "--json")
    assert f"warning: {capture}: unlike what the model knows" in answer.stderr
    told = json.loads(answer.stdout)["judgement"]
    assert told["alarm"]
    assert told["beyond"] == pytest.approx(12 / 13, abs=1e-4)
    target.unlink()
    answer = run("infer", capture, "-o", target, "--model", model, "--strict")
    assert answer.exit_code == 2
    assert "nothing was written" in answer.stderr
    assert not target.exists()
    quiet = done("infer", folder / "test.pcap", "-o", target, "--model", model)
    assert "unlike" not in quiet.stderr


def test_a_report_is_written_beside_the_table(folder, model, tmp_path):
    page = tmp_path / "r.html"
    source, target = folder / "test.pcap", tmp_path / "f.csv"
    done("infer", source, "-o", target, "--model", model, "--report", page)
    text = page.read_text(encoding="utf-8")
    assert "test.pcap" in text
    assert "WEB" in text
    again = run("infer", source, "-o", tmp_path / "g.csv", "--model", model, "--report", page)
    assert again.exit_code == 2
    assert not (tmp_path / "g.csv").exists()


@pytest.mark.slow
def test_standard_input_gives_the_same_labels(folder, model, tmp_path):
    source = folder / "test.pcap"
    done("infer", source, "-o", tmp_path / "a.jsonl", "--model", model)
    arguments = ["infer", "-", "-o", str(tmp_path / "b.jsonl"), "--model", str(model)]
    code = "from fieldfare.netsec.cli import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    subprocess.run(command, input=source.read_bytes(), check=True, capture_output=True)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_a_capture_without_flows_gives_an_empty_table(model, tmp_path):
    source, target = tmp_path / "none.pcap", tmp_path / "f.parquet"
    source.write_bytes(pcap([(1.0, ethernet(b"\0" * 50, 0x0806))]))
    answer = done("infer", source, "-o", target, "--model", model, "--report", tmp_path / "r.html")
    assert "0 flows of 1 packets, 1 not ip" in answer.stderr
    assert pyarrow.parquet.read_table(target).num_rows == 0


def test_scores_audit_baselines_and_pictures(folder, model, tmp_path):
    pytest.importorskip("sklearn")
    out = tmp_path / "scores"
    answer = done(
        "eval", folder / "labels.csv", "--model", model, "-o", out, "--trees",
        "--first-packets", "1,2", "--json", "--quiet",
    )  # fmt: skip
    told = json.loads(answer.stdout)
    assert told["macro_f1"] == 1
    assert [found["hidden"] for found in told["audit"]] == [
        "nothing", "ports", "ttl", "addresses", "all", "(baseline) port lookup",
    ]  # fmt: skip
    assert set(told["baselines"]) == {"port lookup", "400 extra-trees, ports hidden"}
    assert [found["packets"] for found in told["first_packets"]] == [1, 2]
    assert [found["unknown_below"] for found in told["unknown"]][:2] == [0.0, 0.01]
    assert told["unknown"][0] == {
        "unknown_below": 0.0, "unknown": 0.0, "named_right": 1.0, "named_wrong": 0.0,
    }  # fmt: skip
    assert json.loads((out / "scores.json").read_text())["per_class"] == told["per_class"]
    for picture in ("confusion", "reliability", "first_packets"):
        assert (out / f"{picture}.png").read_bytes()[:4] == b"\x89PNG"
    text = done(
        "eval", folder / "labels.csv", "--model", model, "--show", "ports", "--quiet"
    ).stdout
    assert text.startswith("run on test: macro-F1 ")
    assert "hidden from the model: addresses, ttl, numbers, checksums\n" in text


def test_labels_that_the_model_does_not_know_count_as_missed(folder, model, tmp_path):
    text = (folder / "labels.csv").read_text().replace("NAME", "OTHER")
    (tmp_path / "labels.csv").write_text(text)
    answer = done(
        "eval", tmp_path / "labels.csv", "--captures", folder, "--model", model, "--json", "--quiet"
    )
    rows = {found["class"]: found for found in json.loads(answer.stdout)["per_class"]}
    assert rows["OTHER"]["recall"] == 0
    assert rows["WEB"]["recall"] == 1
    test_only = "".join(line for line in text.splitlines(keepends=True) if "train," not in line)
    (tmp_path / "labels.csv").write_text(test_only.replace("val,", "heldout,"))
    answer = done(
        "eval", tmp_path / "labels.csv", "--captures", folder, "--model", model, "--json", "--quiet"
    )
    assert json.loads(answer.stdout)["unknown"][-1]["named_wrong"] == 0
    (tmp_path / "labels.csv").write_text(text.replace("WEB", "MORE"))
    refused = run("eval", tmp_path / "labels.csv", "--captures", folder, "--model", model)
    assert refused.exit_code == 2
    assert "none of the classes of run" in refused.stderr


def test_bench_counts_flows(folder, model):
    answer = done(
        "bench", folder / "test.pcap", "--model", model, "--batch", 8, "--repeats", 2, "--json"
    )
    told = json.loads(answer.stdout)
    assert told["flows"] == 8
    assert told["flows_per_s"] > 0


def published(path, classes):
    """A checkpoint as published, of a small network."""
    torch.manual_seed(0)
    network = NetMambaClassifier(NetMambaConfig(embed_dim=16, depth=1), classes)
    torch.save({"model": network.state_dict()}, path)


def test_published_checkpoints_become_models(folder, tmp_path):
    published(tmp_path / "m.pth", 2)
    target = tmp_path / "m.safetensors"
    convert = ["convert", tmp_path / "m.pth", "-o", target, "--architecture", "netmamba"]
    assert run(*convert, "--classes", "A,B,C").exit_code == 2
    assert not target.exists()
    done(*convert, "--classes", "A,B")
    answer = done("infer", folder / "test.pcap", "-o", tmp_path / "f.jsonl", "--model", target)
    assert "add --directed" in answer.stderr
    labels = [json.loads(line) for line in (tmp_path / "f.jsonl").read_text().splitlines()]
    assert {found["label"] for found in labels} <= {"A", "B"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["netmamba", "netfound"])
def test_exports_agree_with_torch(kind, folder, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    preset = {"netmamba": "netmamba/small", "netfound": "netfound/tiny"}[kind]
    done(
        "train", folder / "labels.csv", "-o", tmp_path / "run", "--preset", preset,
        "--steps", 1, "--batch", 4, "--quiet",
    )  # fmt: skip
    target = tmp_path / "m.onnx"
    answer = done("export", "-o", target, "--model", tmp_path / "run" / "model.safetensors")
    assert "agree within" in answer.stderr
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    assert {given.shape[0] for given in session.get_inputs()} == {"batch"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "{f}/none.csv", "-o", "{t}/r"], "none.csv: no such file"),
        (["train", "{f}/labels.csv", "-o", "{t}/r", "--hide", "port"], "no field is named 'port'"),
        (["train", "{f}/labels.csv", "-o", "{t}/r", "--hide", "ports"], "always hidden"),
        (
            ["train", "{f}/labels.csv", "-o", "{t}/r", "--init", "x", "--preset", "netfound/tiny"],
            "--preset and --init: give one",
        ),
        (["train", "{f}/labels.csv", "-o", "{t}/r", "--init", "x"], "no model is named 'x'"),
        (["train", "{f}/labels.csv", "-o", "{t}/r", "--init", "{f}/bad.safetensors"], "bad.safe"),
        (["pretrain", "{t}", "-o", "{t}/r"], "holds no captures"),
        (["pretrain", "{t}/none", "-o", "{t}/r"], "none: no such file"),
        (["infer", "{f}/none.pcap", "-o", "{t}/f.csv"], "none.pcap: no such file"),
        (["infer", "{f}/labels.csv", "-o", "{t}/f.csv"], "labels.csv: is neither pcap nor pcapng"),
        (["infer", "{f}/test.pcap", "-o", "{t}/f.xlsx"], "f.xlsx: name it"),
        (["infer", "{f}/test.pcap", "-o", "{t}/f.csv", "--show", "ttl"], "ttl hidden"),
        (["infer", "{f}/test.pcap", "-o", "{t}/f.csv", "--early", "0"], "x<=65536"),
        (["infer", "{f}/test.pcap", "-o", "-", "--json"], "leave --json out"),
        (["eval", "{f}/labels.csv", "--split", "heldout"], "no flows in the split 'heldout'"),
        (["eval", "{f}/labels.csv", "--split", "x"], "split 'x': choose one of"),
        (["bench", "{f}/none.pcap"], "none.pcap: no such file"),
        (["convert", "{f}/none", "-o", "{t}/m.safetensors", "--architecture", "netmamba"], "none"),
        (["convert", "{f}/labels.csv", "-o", "{t}/m.pt", "--architecture", "netmamba"], "name it"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, said, folder, model, tmp_path):
    (folder / "bad.safetensors").write_bytes(b"no weights")
    if arguments[0] in ("infer", "eval", "bench"):
        arguments = [*arguments, "--model", str(model)]
    answer = run(*(text.format(f=folder, t=tmp_path) for text in arguments))
    assert answer.exit_code == 2, answer.output
    *_, last = answer.stderr.splitlines()
    assert last.startswith("Error: ")
    assert said in last
    assert "Traceback" not in answer.stderr
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_a_model_of_damaged_weights_is_refused(folder, model, tmp_path):
    card, tensors = load_model_file(model)
    del tensors["classifier.bias"]
    save_model_file(tmp_path / "m.safetensors", tensors, card)
    answer = run(
        "infer", folder / "test.pcap", "-o", tmp_path / "f.csv", "--model",
        tmp_path / "m.safetensors",
    )  # fmt: skip
    assert answer.exit_code == 2
    assert "classifier.bias" in answer.stderr


def test_damaged_packets_are_counted_and_the_rest_is_labelled(model, tmp_path):
    packets = [*web(2001), (3.0, ethernet(ipv4(udp(1, 2, b""), 17, "1.1.1.1", "2.2.2.2")))]
    content = bytearray(pcap(packets))
    content[-28] = 0x41  # an IPv4 header of 4 bytes
    (tmp_path / "c.pcap").write_bytes(content)
    answer = done(
        "infer", tmp_path / "c.pcap", "-o", tmp_path / "f.csv", "--model", model, "--json"
    )
    told = json.loads(answer.stdout)
    assert told["damaged"] == 1
    assert told["flows"] == 1
