# SPDX-License-Identifier: Apache-2.0
"""`train --adapter-rank` and `infer --adapters`: of a site, of none, of another model."""

import dataclasses
import json
import shutil

import numpy as np
import pyarrow.parquet
import pytest
import torch
from click.testing import CliRunner
from labelled_captures import name, row, web, write_labels
from make_captures import ethernet, ipv4, pcap, tcp
from routed_models import CONFIG, dense, model_file

from fieldfare.common.errors import InputError
from fieldfare.common.weights import ModelCard, load_model_file, read_card, save_model_file
from fieldfare.netsec.cli import main
from fieldfare.netsec.data.dataset import load_flows, training_options
from fieldfare.netsec.data.labels import read_labels
from fieldfare.netsec.inference.adapters import FILE, KnownSites, adapt, load_adapters
from fieldfare.netsec.inference.classifier import ClassifierConfig, load_classifier
from fieldfare.netsec.networks.architectures import TASK
from fieldfare.netsec.training.adapting import as_known

HIDDEN = ("addresses", "ports")


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def done(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, a site's labels, and the site's adapter by the command."""
    folder = tmp_path_factory.mktemp("sites")
    webs, names = range(2000, 2006), range(2100, 2106)
    packets = [*(p for port in webs for p in web(port)), *(p for n in names for p in name(n))]
    (folder / "a.pcap").write_bytes(pcap(packets))
    rows = [row("train", "a.pcap", "WEB", port) for port in webs]
    rows += [row("train", "a.pcap", "NAME", port) for port in names]
    labels = write_labels(folder, rows)
    described = ClassifierConfig("netfound", CONFIG.to_dict(), ("ICMP", "NAME", "WEB"), HIDDEN)
    card = ModelCard("dense", TASK, "Made up.", dataclasses.asdict(described))
    save_model_file(folder / "dense.safetensors", dense().state_dict(), card)
    done(
        "train", labels, "-o", folder / "sites" / "lab", "--init", folder / "dense.safetensors",
        "--adapter-rank", 2, "--steps", 8, "--batch", 4, "--learning-rate", 0.05, "--quiet",
    )  # fmt: skip
    (folder / "elsewhere.pcap").write_bytes(pcap([p for n in range(9) for p in elsewhere(n)]))
    return folder


def elsewhere(number):
    """A flow between public addresses, long under way, nobody answers."""
    packet = bytearray(ipv4(tcp(3000 + number, 8080, payload=b"x" * 400), 6, "8.8.8.8", "9.9.9.9"))
    packet[8] = 110
    return [(number + k, ethernet(bytes(packet))) for k in (0.0, 50.0, 100.0)]


def table(target):
    return pyarrow.parquet.read_table(target).drop_columns(["model"])


def test_an_adapter_is_small_and_says_what_it_belongs_to(folder):
    path = folder / "sites" / "lab" / FILE
    card, tensors = load_model_file(path)
    assert card.name == "lab"
    assert card.config["rank"] == 2
    assert (path.with_suffix(".md")).is_file()
    numbers = sum(tensor.numel() for tensor in tensors.values())
    assert numbers < sum(tensor.numel() for tensor in dense().state_dict().values()) / 10
    (found,) = load_adapters(folder / "sites")
    assert max(float(t.abs().max()) for n, t in found.tensors.items() if n.endswith(".up")) > 0
    assert max(float(t.abs().max()) for n, t in found.tensors.items() if n.endswith(".gate")) > 0


def test_flows_of_the_site_get_it_and_others_the_model_to_the_bit(folder, tmp_path):
    model = ["--model", folder / "dense.safetensors", "--quiet"]
    told = {}
    for capture in ("a", "elsewhere"):
        for kind, more in (("plain", []), ("adapted", ["--adapters", folder / "sites"])):
            target = tmp_path / f"{capture}_{kind}.parquet"
            answer = done(
                "infer", folder / f"{capture}.pcap", "-o", target, *model, *more, "--json"
            )
            told[capture, kind] = json.loads(answer.stdout)
    assert told["a", "adapted"]["adapters"] == {"lab": 12, "none": 0}
    assert told["elsewhere", "adapted"]["adapters"]["lab"] == 0
    assert "adapters" not in told["a", "plain"]
    assert not table(tmp_path / "a_plain.parquet").equals(table(tmp_path / "a_adapted.parquet"))
    plain, adapted = (table(tmp_path / f"elsewhere_{k}.parquet") for k in ("plain", "adapted"))
    assert plain.equals(adapted)
    many = ["infer", folder / "a.pcap", folder / "elsewhere.pcap", "-o", tmp_path / "many", *model]
    done(*many, "--adapters", folder / "sites")
    assert table(tmp_path / "many" / "a.parquet").equals(table(tmp_path / "a_adapted.parquet"))
    shown = done("eval", folder / "labels.csv", "--split", "train", *model, "--adapters",
                 folder / "sites", "--json").stdout  # fmt: skip
    assert 0 <= json.loads(shown)["macro_f1"] <= 1


def test_what_cannot_be_used_is_refused_in_one_line(folder, tmp_path):
    empty, double, damaged = (tmp_path / name for name in ("empty", "double", "damaged"))
    for path in (empty, double / "x", double / "y", damaged):
        path.mkdir(parents=True)
    for path in (double / "x", double / "y"):
        shutil.copy(folder / "sites" / "lab" / FILE, path / FILE)
    card, tensors = load_model_file(folder / "sites" / "lab" / FILE)
    save_model_file(damaged / FILE, {n: t for n, t in tensors.items() if n != "site"}, card)
    other = model_file(tmp_path / "other.safetensors")
    plain = folder / "dense.safetensors"
    for sites, model, more, why in (
        (empty, plain, [], f"holds no {FILE}"),
        (tmp_path / "no", plain, [], "no such folder"),
        (double, plain, [], "named 'lab' too"),
        (damaged, plain, [], "its site is damaged"),
        (folder / "sites", other, [], "another network"),
        (folder / "sites", plain, ["--explain"], "together with --explain"),
        (folder / "sites", plain, ["--weights-memory", "64MB"], "together with --weights-memory"),
        (folder / "sites", plain, ["--budget", "1GMAC"], "together with --within"),
    ):
        target = tmp_path / "x.parquet"
        refused = run("infer", folder / "a.pcap", "-o", target, "--model", model, "--adapters",
                      sites, *more)  # fmt: skip
        assert refused.exit_code == 2, why
        assert why in refused.stderr
        assert not target.exists()
    labels = folder / "labels.csv"
    for more, why in (
        ([], "needs --init"),
        (["--init", plain, "--experts", "learned"], "no use for --experts"),
        (["--init", plain, "--teacher", plain], "no use for --teacher"),
    ):
        refused = run("train", labels, "-o", tmp_path / "no", "--adapter-rank", 2, *more)
        assert refused.exit_code == 2
        assert why in refused.stderr
    assert read_card(plain).task == TASK


def test_classes_are_those_of_the_model(folder):
    data = load_flows(read_labels(folder / "labels.csv"), quiet=True)
    known = as_known(data, ("WEB", "X", "NAME"))
    assert [known.classes[n] for n in known.label] == [data.classes[n] for n in data.label]
    with pytest.raises(InputError, match="does not know NAME"):
        as_known(data, ("WEB",))


def test_near_sites_are_counted_and_the_rest_is_the_network(folder):
    classifier, _ = load_classifier(str(folder / "dense.safetensors"))
    options = training_options(classifier.kept)
    flows = load_flows(read_labels(folder / "labels.csv"), options=options, quiet=True).flows
    plain = classifier.look(flows)[0]
    adapt(classifier, folder / "sites")
    adapted = classifier.look(flows)[0]
    assert classifier.sites.to_json() == {"lab": 12, "none": 0}
    assert not np.array_equal(plain, adapted)
    far = KnownSites(classifier, load_adapters(folder / "sites"), least=1.1)
    assert far.network_for(flows) is classifier.network
    assert far.to_json() == {"lab": 0, "none": 12}
    assert float(far.likeness(flows)[0]) == pytest.approx(1.0, abs=1e-5)
    assert torch.equal(far.base.classifier.weight, dense().classifier.weight)
