# SPDX-License-Identifier: Apache-2.0
"""Training on small captures made in code: it learns, resumes, and keeps to its splits."""

import dataclasses

import numpy as np
import pytest
import torch
from labelled_captures import name, row, web, write_labels
from make_captures import pcap

from fieldfare.common.errors import InputError
from fieldfare.common.training import TrainSettings
from fieldfare.netsec.capture import FirstPackets, FlowBatch
from fieldfare.netsec.data.dataset import load_flows, read_captures
from fieldfare.netsec.data.evasion import Evasion
from fieldfare.netsec.data.flow_rows import first_packets_only
from fieldfare.netsec.data.labels import read_labels
from fieldfare.netsec.data.masking import mask
from fieldfare.netsec.inference.classifier import run
from fieldfare.netsec.inference.start import Start
from fieldfare.netsec.networks.architectures import architecture
from fieldfare.netsec.networks.netfound import NetFoundConfig
from fieldfare.netsec.networks.netmamba import NetMambaConfig
from fieldfare.netsec.networks.netmamba.augmentation import augment
from fieldfare.netsec.training.run import (
    FineTuning,
    pretrain,
    train_classifier,
    training_flows,
    worst,
)
from fieldfare.netsec.training.variants import cut_short

CONFIGS = {
    "netmamba": NetMambaConfig(
        byte_length=128, packets=2, header_bytes=40, embed_dim=16, depth=1, decoder_embed_dim=8,
        decoder_depth=1,
    ),
    "netfound": NetFoundConfig(
        16, 1, 2, 32, vocabulary="bytes", payload_tokens=2, max_bursts=4, dropout=0.0
    ),
}  # fmt: skip
SETTINGS = TrainSettings(
    steps=60, batch_size=8, learning_rate=1e-2, ema_decay=0.8, log_every=5, checkpoint_every=10,
    validate_every=60,
)  # fmt: skip
HIDDEN = ("addresses", "ports", "checksums", "numbers")


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    """WEB and NAME, 12 flows each to train on and 4 for validation."""
    folder = tmp_path_factory.mktemp("labelled")
    rows = []
    for split, file, first, count in (("train", "a.pcap", 2000, 12), ("val", "v.pcap", 4000, 4)):
        webs = range(first, first + count)
        names = range(first + 100, first + 100 + count)
        packets = [*(p for port in webs for p in web(port)), *(p for n in names for p in name(n))]
        (folder / file).write_bytes(pcap(packets))
        rows += [row(split, file, "WEB", port) for port in webs]
        rows += [row(split, file, "NAME", port) for port in names]
    return read_labels(write_labels(folder, rows))


@pytest.mark.parametrize("kind_name", CONFIGS)
def test_it_learns_and_calibrates(kind_name, labels, tmp_path):
    kind, data = architecture(kind_name), load_flows(labels, quiet=True)
    network, temperature = train_classifier(
        kind, CONFIGS[kind_name], data, FineTuning(HIDDEN), SETTINGS, tmp_path, quiet=True
    )
    val = data.of_split("val")
    inputs = kind.read(mask(val.flows, HIDDEN), CONFIGS[kind_name])
    logits, _ = run(network, inputs, 2)
    assert np.array_equal(logits.argmax(axis=1), val.label)
    assert temperature is not None
    assert (tmp_path / "log.csv").read_text().count("macro_f1")


def test_an_interrupted_run_ends_where_a_whole_one_does(labels, tmp_path):
    kind, data = architecture("netmamba"), load_flows(labels, quiet=True)
    how = FineTuning(("addresses",), ("ports",))

    def train(folder, steps):
        settings = dataclasses.replace(SETTINGS, steps=steps, validate_every=1000)
        return train_classifier(
            kind, CONFIGS["netmamba"], data, how, settings, tmp_path / folder, quiet=True
        )[0].state_dict()

    whole = train("whole", 12)
    stopper = _StopAfter(kind, 7)
    with pytest.raises(KeyboardInterrupt):
        train_classifier(
            stopper, CONFIGS["netmamba"], data, how,
            dataclasses.replace(SETTINGS, steps=12, checkpoint_every=1, validate_every=1000),
            tmp_path / "cut", quiet=True,
        )  # fmt: skip
    again = train("cut", 12)
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    with pytest.raises(InputError, match="settings"):
        train_classifier(
            kind, CONFIGS["netmamba"], data, FineTuning(("ttl",)),
            dataclasses.replace(SETTINGS, steps=12), tmp_path / "whole", quiet=True,
        )  # fmt: skip


class _StopAfter:
    """An architecture that presses Ctrl-C once so many batches were drawn."""

    def __init__(self, kind, count):
        self.kind, self.left = kind, count

    def __getattr__(self, name):
        return getattr(self.kind, name)

    def augment(self, *arguments):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.kind.augment(*arguments)


@pytest.mark.parametrize("kind_name", CONFIGS)
def test_pre_training_gives_an_encoder_to_begin_with(kind_name, labels, tmp_path):
    kind, config = architecture(kind_name), CONFIGS[kind_name]
    flows = read_captures(labels.paths("train"), quiet=True)
    network = pretrain(
        kind, config, flows, HIDDEN, ("ttl",), SETTINGS, tmp_path / "pre", quiet=True
    )
    losses = [
        float(line.split(",")[1])
        for line in (tmp_path / "pre" / "log.csv").read_text().splitlines()[1:]
    ]
    assert losses[-1] < 0.9 * losses[0]
    settings = dataclasses.replace(SETTINGS, steps=1, learning_rate=1e-9, ema_decay=0.0)
    start = Start(kind, config, network.state_dict(), tmp_path / "pre")
    tuned, _ = train_classifier(
        kind, config, load_flows(labels, quiet=True), FineTuning(HIDDEN), settings,
        tmp_path / "tuned", start=start, quiet=True,
    )  # fmt: skip
    before, after = network.state_dict(), tuned.state_dict()
    shared = [key for key in after if key in before and "mbed" in key]
    assert shared
    for key in shared:
        torch.testing.assert_close(after[key], before[key], atol=1e-6, rtol=1e-4)


def test_few_shots_and_missing_splits(labels, tmp_path):
    kind, data = architecture("netmamba"), load_flows(labels, quiet=True)
    settings = dataclasses.replace(SETTINGS, steps=2)
    train = data.select(np.flatnonzero(data.split == 0))
    how = FineTuning(HIDDEN, shots=2)
    _, temperature = train_classifier(
        kind, CONFIGS["netmamba"], train, how, settings, tmp_path / "few", quiet=True
    )
    assert temperature is None
    val = data.select(np.flatnonzero(data.split == 1))
    with pytest.raises(InputError, match="no flows in the split 'train'"):
        train_classifier(
            kind, CONFIGS["netmamba"], val, how, settings, tmp_path / "none", quiet=True
        )


def test_augmentation_leaves_things_out_and_adds_nothing():
    config = NetMambaConfig(byte_length=640, header_bytes=48)
    rows = np.random.default_rng(0).integers(1, 256, (400, 640), dtype=np.uint8)
    rows.reshape(400, 5, 128)[:, 3:] = 0
    before = rows.copy()
    changed = augment(rows, config, np.random.default_rng(1))
    again = augment(rows, config, np.random.default_rng(1))
    assert np.array_equal(rows, before)
    assert np.array_equal(changed, again)
    packets = changed.reshape(400, 5, 128)
    assert not packets[:, 3:].any()
    assert packets.any(axis=(1, 2)).all()  # something is left of each
    moved = ~((changed == 0) | (changed == rows)).all(axis=1)
    assert 0 < moved.sum() < 60  # those that lost their first packets
    for flow, old in zip(packets[moved], rows.reshape(400, 5, 128)[moved], strict=True):
        lost = 3 - int(flow.any(axis=1).sum())
        kept = old[lost:3]
        assert ((flow[: len(kept)] == 0) | (flow[: len(kept)] == kept)).all()


def test_a_teacher_is_followed_and_changed_copies_are_learnt_from(labels, tmp_path):
    kind, data = architecture("netmamba"), load_flows(labels, quiet=True)
    how = FineTuning(HIDDEN, variations=2, taught=1.0)

    def wrong(flows):  # calls every flow the other class
        return np.where((flows.protocol == 17)[:, None], [0.05, 0.95], [0.95, 0.05])

    assert data.classes == ("NAME", "WEB")
    network, _ = train_classifier(
        kind, CONFIGS["netmamba"], data, how, SETTINGS, tmp_path, teacher=wrong, quiet=True
    )
    val = data.of_split("val")
    inputs = kind.read(mask(val.flows, HIDDEN), CONFIGS["netmamba"])
    assert np.array_equal(run(network, inputs, 2)[0].argmax(axis=1), 1 - val.label)


def test_captures_are_capped_before_training(labels):
    data = load_flows(labels, quiet=True)
    found = training_flows(data, FineTuning(per_capture=5), seed=0)
    assert found.support().tolist() == [5, 5]
    assert training_flows(data, FineTuning(shots=3), seed=0).support().tolist() == [3, 3]


def test_it_is_trained_on_the_disguise_that_it_errs_on_most(labels, tmp_path):
    kind, data = architecture("netfound"), load_flows(labels, quiet=True)
    short = dataclasses.replace(SETTINGS, steps=2, validate_every=1000)
    plain, robust = (
        train_classifier(
            kind, CONFIGS["netfound"], data, FineTuning(HIDDEN, robust=tries), short,
            tmp_path / str(tries), quiet=True,
        )[0].state_dict()
        for tries in (0, 3)
    )  # fmt: skip
    assert any(not torch.equal(plain[name], robust[name]) for name in plain)

    draws = [Evasion.draw(4, np.random.default_rng(seed)) for seed in range(3)]
    logits = torch.zeros(3, 4, 2)
    logits[[2, 0, 1, 2], range(4), 1] = 1.0  # the wrong class, most in these draws

    class Said(torch.nn.Linear):
        def forward(self, number):
            return logits[number[0]]

    def read(draw):
        return torch.tensor([next(i for i, known in enumerate(draws) if known is draw)])

    chosen = worst(Said(1, 1), read, draws, torch.zeros(4, dtype=torch.int64))
    assert chosen.ttl.tolist() == [int(draws[d].ttl[i]) for i, d in enumerate((2, 0, 1, 2))]


def test_flows_are_cut_short_but_not_before_they_speak():
    # Of 6, 2, 12 and 1 packets, the payload from the third, first and sixth on, and none.
    counts, speaks = np.array([6, 2, 12, 1]), np.array([2, 0, 5, 99])
    flow = np.repeat(np.arange(4), counts)
    number = np.concatenate([np.arange(count) for count in counts])
    columns = {
        field.name: np.zeros(len(flow), np.int64) for field in dataclasses.fields(FirstPackets)
    }
    columns |= {"flow": flow, "payload_length": (number >= speaks[flow]) * 9}
    columns |= {"data": np.zeros((len(flow), 4), np.uint8)}
    whole = {f.name: np.zeros(4, np.int64) for f in dataclasses.fields(FlowBatch)}
    flows = FlowBatch(**whole | {"first_packets": FirstPackets(**columns)})
    seen = [set(), set(), set(), set()]
    for seed in range(200):
        cut = cut_short(flows, np.random.default_rng(seed)).first_packets
        for place, count in enumerate(np.bincount(cut.flow, minlength=4).tolist()):
            seen[place].add(count)
    assert seen == [{3, 4, 5, 6}, {1, 2}, {6, 7, 8}, {1}]


def test_training_on_first_packets_too_learns_and_contrast_counts(labels, tmp_path):
    kind, data = architecture("netfound"), load_flows(labels, quiet=True)
    settings = dataclasses.replace(SETTINGS, steps=40, validate_every=1000)
    val = data.of_split("val")
    inputs = kind.read(mask(first_packets_only(val.flows, 1), HIDDEN), CONFIGS["netfound"])
    found = []
    for contrast in (0.0, 0.5):
        network, _ = train_classifier(
            kind, CONFIGS["netfound"], data, FineTuning(HIDDEN, contrast=contrast), settings,
            tmp_path / str(contrast), quiet=True,
        )  # fmt: skip
        found.append(network.state_dict())
        assert np.array_equal(run(network, inputs, 2)[0].argmax(axis=1), val.label)
    plain = kind.classifier(CONFIGS["netfound"], 2).state_dict()
    assert list(found[0]) == list(found[1]) == list(plain)
    assert not all(torch.equal(found[0][name], found[1][name]) for name in plain)


def test_what_came_later_does_not_change_what_older_runs_share():
    assert {"robust", "contrast"}.isdisjoint(FineTuning(HIDDEN).identity())
    assert FineTuning(robust=2, contrast=0.0).identity()["contrast"] == 0.0
    assert FineTuning(robust=2).identity()["robust"] == 2
