# SPDX-License-Identifier: Apache-2.0
"""Bursts and tokens against the published tokenisers and against a plain loop."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fieldfare.netsec.networks.netfound import NetFoundConfig, read_records, tokenise
from fieldfare.netsec.networks.netfound.tokens import BURST_GAP, number_bursts

CONFIG = NetFoundConfig(16, 2, 4, 24)


def test_tokens_and_metadata_equal_the_published_ones_of_19_flows(published):
    expected = json.loads((published / "tokenize_expected.json").read_text())
    assert len(expected) == 19
    config = replace(CONFIG, payload_tokens=6)
    for name, wanted in expected.items():
        tokens = tokenise(read_records(published / "extracted" / name), config)
        bursts = int((tokens.direction[0] != 0).sum())
        words = [tokens.ids[0, b][tokens.ids[0, b] != 0][1:] - 1 for b in range(bursts)]
        assert [burst.tolist() for burst in words] == wanted["burst_tokens"], name
        assert (tokens.direction[0, :bursts] > 0).tolist() == wanted["directions"], name
        assert tokens.bytes[0, :bursts].tolist() == wanted["bytes"], name
        assert tokens.packets[0, :bursts].tolist() == wanted["counts"], name
        assert tokens.interval[0, :bursts].tolist() == wanted["iats"], name
        assert tokens.duration[0] == wanted["flow_duration"], name
        assert tokens.protocol[0] == wanted["protocol"], name


def test_network_inputs_equal_the_published_tokenisers_of_5_flows(published):
    expected = json.loads((published / "hf_tokenizer_expected.json").read_text())
    names = list(json.loads((published / "tokenize_expected.json").read_text()))
    for row, flow in enumerate((0, 1, 2, 5, 8)):
        tokens = tokenise(read_records(published / "extracted" / names[flow]), CONFIG)
        inputs = tokens.batch([0])
        bursts = expected["total_bursts"][row]
        assert inputs.ids.shape[1] == bursts
        assert tokens.duration[0] == expected["flow_duration"][row]
        assert inputs.protocol[0] == expected["protocol"][row]
        for burst in range(bursts):
            here = inputs.mask[0, burst]
            length = int(here.sum())
            assert inputs.ids[0, burst][here].tolist() == expected["input_ids"][row][burst]
            assert length == len(expected["attention_mask"][row][burst])
            for ours, theirs in (
                (inputs.direction, "direction"),
                (inputs.bytes, "bytes"),
                (inputs.packets, "pkt_count"),
                (inputs.interval, "iats"),
            ):
                assert [float(ours[0, burst])] * length == expected[theirs][row][burst]


def test_collated_batch_equals_the_published_one(published, finetune):
    inputs, _, _ = finetune
    names = list(json.loads((published / "tokenize_expected.json").read_text()))
    for row, flow in enumerate((0, 1, 2, 5, 8)):
        ours = tokenise(read_records(published / "extracted" / names[flow]), CONFIG).batch([0])
        bursts, length = ours.ids.shape[1:]
        assert ours.ids[0].equal(inputs.ids[row, :bursts, :length])
        assert not inputs.mask[row, bursts:].any()
        assert ours.mask[0].equal(inputs.mask[row, :bursts, :length])
        assert ours.bytes[0].equal(inputs.bytes[row, :bursts])


def plain_bursts(packets):
    """The same as number_bursts, packet by packet."""
    number, place = [], []
    for flow in range(len(packets.protocol)):
        rows = np.flatnonzero(packets.flow == flow)
        bursts = []
        for side in (False, True):
            last = None
            for row in rows[packets.backward[rows] == side]:
                if last is None or packets.time[row] - last > BURST_GAP:
                    bursts.append([])
                bursts[-1].append(row)
                last = packets.time[row]
        bursts.sort(key=lambda burst: packets.time[burst[0]])  # stable: forward first
        found = {row: (n, p) for n, burst in enumerate(bursts) for p, row in enumerate(burst)}
        number += [found[row][0] for row in rows]
        place += [found[row][1] for row in rows]
    return number, place


def test_bursts_equal_those_of_a_plain_loop(make_packets):
    packets = make_packets([1, 40, 7, 100, 3, 25], seed=3)
    burst, place = number_bursts(packets)
    assert (burst.tolist(), place.tolist()) == plain_bursts(packets)


def test_a_pause_of_exactly_10_ms_does_not_end_a_burst(make_packets):
    packets = make_packets([3])
    time = np.array([0, BURST_GAP, 2 * BURST_GAP + 1])
    burst, place = number_bursts(replace(packets, time=time, backward=np.zeros(3, bool)))
    assert (burst.tolist(), place.tolist()) == ([0, 0, 1], [0, 1, 0])


def test_flows_are_tokenised_each_by_itself(make_packets):
    packets = make_packets([4, 1, 30, 9], seed=1)
    together = tokenise(packets, CONFIG)
    for flow in range(4):
        rows = packets.flow == flow
        alone = tokenise(
            replace(
                packets,
                protocol=packets.protocol[[flow]],
                flow=np.zeros(rows.sum(), int),
                time=packets.time[rows],
                backward=packets.backward[rows],
                header=packets.header[rows],
                payload=packets.payload[rows],
            ),
            CONFIG,
        )
        for name in ("ids", "direction", "bytes", "packets", "interval", "duration"):
            assert np.array_equal(getattr(alone, name)[0], getattr(together, name)[flow]), name


def test_no_more_than_12_bursts_of_6_packets_are_read(make_packets):
    packets = make_packets([400, 1], seed=2, payload_words=6)
    tokens = tokenise(replace(packets, time=packets.time // 8), CONFIG)
    assert tokens.ids.shape == (2, 12, 73)
    assert tokens.packets.max() == 6
    assert (tokens.direction[0] != 0).all()


def test_a_batch_is_cut_to_its_longest_burst_and_most_bursts(flow_tokens):
    whole = flow_tokens.batch(slice(None))
    part = flow_tokens.batch([0, 1])
    assert part.ids.shape[1] < whole.ids.shape[1]
    assert part.mask.any(dim=0).any(dim=1).all()
    assert part.mask.any(dim=0).any(dim=0).all()
    assert int(part.mask.sum()) == int((flow_tokens.ids[:2] != 0).sum())


def test_by_size_gives_every_row_once_and_little_padding(flow_tokens):
    rows = flow_tokens.by_size()
    assert sorted(rows.tolist()) == list(range(len(flow_tokens)))

    def cells(order):
        batches = (flow_tokens.batch(order[i : i + 4]) for i in range(0, len(order), 4))
        return sum(batch.ids.numel() for batch in batches)

    assert cells(rows) < cells(np.arange(len(rows)))


def test_too_few_payload_words_are_refused(make_packets):
    with pytest.raises(ValueError, match="2 payload words"):
        tokenise(make_packets([3], payload_words=2), replace(CONFIG, payload_tokens=6))


def test_no_flows_give_no_tokens(make_packets):
    tokens = tokenise(make_packets([]), CONFIG)
    assert tokens.ids.shape == (0, 12, 73)
