# SPDX-License-Identifier: Apache-2.0
"""Weights that stay in their file: the same results, within the limit, as few loads as can be."""

import json
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from fieldfare.common.errors import InputError
from fieldfare.common.experts import Bank, ExpertLayer, LinearRouter, TopK
from fieldfare.common.experts.cache import Cache, count_loads, group_by_route
from fieldfare.common.experts.merge import merge
from fieldfare.common.experts.offload import TensorFile, offload
from fieldfare.common.experts.stream import stream


def test_experts_are_loaded_as_worked_by_hand(examples):
    example = examples["expert_cache"]
    accesses = [expert for batch in example["batches"] for expert in batch]
    for slots in (2, 3):
        assert count_loads(accesses, slots, planned=False) == example[f"loads_lru_{slots}"]
        assert count_loads(accesses, slots, planned=True) == example[f"loads_predicted_{slots}"]


@given(st.lists(st.integers(0, 6), max_size=60), st.integers(1, 5))
def test_a_plan_never_costs_more_loads_than_recent_use(accesses, slots):
    planned = count_loads(accesses, slots, planned=True)
    assert planned <= count_loads(accesses, slots, planned=False)
    assert planned >= len(set(accesses))


def test_flows_are_grouped_by_their_route_as_worked_by_hand(examples):
    example = examples["token_schedule"]
    routes = torch.tensor(example["routes"]).bool()
    arrival = torch.tensor(example["arrival_order"]).split(3)
    active = [int(routes[batch].any(dim=0).sum()) for batch in arrival]
    assert active == example["active_experts_arrival"]
    grouped = group_by_route(routes[example["arrival_order"]], 3)
    order = torch.tensor(example["arrival_order"])
    active = [int(routes[order[batch]].any(dim=0).sum()) for batch in grouped]
    assert active == example["active_experts_grouped"]
    assert sorted(n for batch in group_by_route(torch.rand(7, 4) > 0.5, 3) for n in batch) == [
        *range(7)
    ]


class Network(nn.Module):
    """Embedding, two expert layers, a norm and a head."""

    def __init__(self, gated=True, bias=False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.layers = nn.ModuleList(
            ExpertLayer(LinearRouter(8, 6), TopK(2), [Bank(6, 8, 12, gated=gated, bias=bias)])
            for _ in range(2)
        )
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, ids):
        x = self.embedding(ids)
        for layer in self.layers:
            x = x + layer(x).output
        return self.head(self.norm(x))


@pytest.fixture(params=[(True, False), (False, True)])
def network(request):
    model = Network(*request.param).eval()
    model.layers[1].groups[0] = merge(
        model.layers[1].groups[0], torch.tensor([0, 1, 2, 0, 1, 2]), torch.ones(6)
    )
    return model


def saved(model, folder):
    path = folder / "model.safetensors"
    save_file(model.state_dict(), path)
    return path


def expert_bytes(bank):
    return sum(w[0].nbytes for w in bank.weights if w is not None)


def test_offloaded_experts_are_the_same_to_the_bit(network, tmp_path):
    ids = torch.randint(20, (4, 5))
    expected = network(ids)
    one = expert_bytes(network.layers[0].groups[0])
    cache = offload(network, saved(network, tmp_path), 3 * one)
    for _ in range(2):
        assert torch.equal(network(ids), expected)
    assert 0 < cache.peak <= 3 * one
    assert cache.loads > 3
    assert not any("inner" in name for name, _ in network.named_parameters())


def test_a_known_route_loads_every_expert_once(network, tmp_path):
    ids = torch.randint(20, (40, 5))
    network(ids)
    one = expert_bytes(network.layers[0].groups[0])
    cache = offload(network, saved(network, tmp_path), 9 * one)
    cache.plan([(f"layers.{n}.groups.0", m) for n in range(2) for m in range(6 if n == 0 else 3)])
    network(ids)
    assert cache.loads <= 9
    network(ids)
    assert cache.loads <= 9


@pytest.mark.parametrize("resident", [(), ("embedding",)])
def test_a_streamed_network_is_the_same_to_the_bit_within_its_limit(network, tmp_path, resident):
    ids = torch.randint(20, (4, 5))
    expected = network(ids)
    path = saved(network, tmp_path)
    whole = sum(value.nbytes for value in network.state_dict().values())
    limit = 2 * expert_bytes(network.layers[0].groups[0]) + 20 * 8 * 4
    assert limit < whole
    bank = network.layers[0].groups[0]
    fresh = Network(bank.gated, bank.inner_bias is not None)
    fresh.layers[1].groups[0] = merge(
        fresh.layers[1].groups[0], torch.tensor([0, 1, 2, 0, 1, 2]), torch.ones(6)
    )
    cache = stream(fresh.eval(), path, limit, resident=resident)
    for _ in range(3):
        assert torch.equal(fresh(ids), expected)
    assert 0 < cache.peak <= limit
    assert fresh.head.weight.numel() == 0


def test_what_is_foreseen_stays():
    loaded = []
    cache = Cache(lambda key: loaded.append(key), 3)
    for _ in range(4):  # four parts in turn, room for three
        cache.begin()
        for key in "abcd":
            cache.get(key, 1)
    assert len(loaded) < 16 - 4
    recent = Cache(lambda key: None, 3)
    for _ in range(4):
        for key in "abcd":
            recent.get(key, 1)
    assert recent.loads == 16


def test_too_small_a_limit_is_said(network, tmp_path):
    path = saved(network, tmp_path)
    offload(network, path, 10)
    with pytest.raises(InputError, match="raise the limit"):
        network(torch.zeros(1, 2).long())


def test_a_wrong_file_is_said(network, tmp_path):
    path = saved(network, tmp_path)
    other = Network(gated=not network.layers[0].groups[0].gated)
    with pytest.raises(InputError, match=r"inner is \(6, \d+, 8\), not"):
        offload(other, path, 10**6)
    state = network.state_dict()
    del state["layers.0.groups.0.outer"]
    save_file(state, path)
    with pytest.raises(InputError, match=r"holds no tensor layers\.0\.groups\.0\.outer"):
        offload(network, path, 10**6)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match="not a safetensors file"):
        TensorFile(path)
    with pytest.raises(InputError, match="not a safetensors file"):
        TensorFile(tmp_path / "absent")
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    with pytest.raises(InputError, match="another size"):
        TensorFile(path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64])
def test_parts_of_tensors_are_read_as_they_were_written(tmp_path, dtype):
    path = tmp_path / "t.safetensors"
    value = torch.randn(3, 4, 5).mul(100).to(dtype)
    empty = torch.empty(0, 2)
    save_file({"value": value, "empty": empty}, path)
    file = TensorFile(path)
    assert torch.equal(file.read("value"), value)
    for part in range(3):
        assert torch.equal(file.read("value", part), value[part])
    assert file.read("empty").shape == (0, 2)
    assert file.bytes("value") == value.nbytes
    assert "value" in file
    assert "other" not in file
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    with pytest.raises(InputError, match="copy the file again"):
        file.read("value", 2)
