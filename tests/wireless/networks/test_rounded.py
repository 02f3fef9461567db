# SPDX-License-Identifier: Apache-2.0
"""Precoders on a few bits: the file holds what torch, the loops and the ONNX graph compute with."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from fieldfare.common.commands.train import save_trained
from fieldfare.common.errors import InputError
from fieldfare.common.weights import ModelCard, save_model_file
from fieldfare.wireless.channels.rayleigh import rayleigh
from fieldfare.wireless.networks.kernels.channels import Channels, compile_network
from fieldfare.wireless.networks.models import load_precoder_network, precoder_size
from fieldfare.wireless.networks.precoder import IcgnnPrecoder, precode, precode_ragged
from fieldfare.wireless.networks.precoder import run as run_network
from fieldfare.wireless.networks.quantised import (
    LearntLinear,
    QuantisedLinear,
    learn_bits,
    quantise,
    stored_bytes,
)
from fieldfare.wireless.networks.real import RealPrecoder, _block, _inverse, _look
from fieldfare.wireless.networks.rounded import RoundedLinear, RoundedPrecoder, freeze
from fieldfare.wireless.networks.structure import equal_shares, observe
from fieldfare.wireless.precoding import cli
from fieldfare.wireless.precoding.learned import load_precoder
from fieldfare.wireless.signals.rates import sum_rate

KINDS = ("2", "4", "8", "learn")


def some_network() -> IcgnnPrecoder:
    """The packaged one: what it rounds to matters."""
    return load_precoder_network("icgnn_precoder")[0]


def rounded(kind: str) -> RoundedPrecoder:
    network = some_network()
    return freeze(learn_bits(network) if kind == "learn" else quantise(network, int(kind)))


def mixed() -> RoundedPrecoder:
    """Every linear layer of its own bits."""
    twin = learn_bits(some_network())
    for number, layer in enumerate(m for m in twin.modules() if isinstance(m, LearntLinear)):
        torch.nn.init.constant_(layer.weight_bits.alpha[1 + number % 3], 1.0)
        torch.nn.init.constant_(layer.input_bits.alpha[1 + (number + 1) % 3], 1.0)
    return freeze(twin)


def channels(*size: int) -> torch.Tensor:
    return rayleigh(size, torch.Generator().manual_seed(0), torch.complex128)


def saved(folder: Path, network: RoundedPrecoder) -> str:
    card = ModelCard("model", "precoding", summary="Rounded.", config=network.config)
    return str(save_trained(folder, network, card))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_whole_steps_of_as_many_bits_and_near_the_twin_s(kind: str) -> None:
    network = some_network()
    twin = learn_bits(network) if kind == "learn" else quantise(network, int(kind))
    frozen = freeze(twin)
    for name, layer in frozen.named_modules():
        if not isinstance(layer, RoundedLinear):
            continue
        of = twin.get_submodule(name)
        assert isinstance(of, LearntLinear | QuantisedLinear)
        grid = of.grid()
        assert layer.bits == (grid.weight_bits, grid.input_bits)
        steps = layer.weight / grid.steps.half().double().unsqueeze(-1)
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-9)
        limit = 2 ** (grid.weight_bits - 1)
        assert steps.min() >= -limit
        assert steps.max() <= limit - 1
        error = (layer.weight - of.weight.double()).abs() / grid.steps.double().unsqueeze(-1)
        assert error[steps.abs() < limit - 1].max() <= 0.51


def test_the_file_holds_the_numbers_and_their_bits(tmp_path: Path) -> None:
    network = mixed()
    path = saved(tmp_path, network)
    again, card = load_precoder_network(path)
    assert isinstance(again, RoundedPrecoder)
    assert card.config["bits"] == network.config["bits"]
    assert len({tuple(pair) for pair in card.config["bits"].values()}) > 2
    H = channels(4, 5, 6)
    with torch.no_grad():
        torch.testing.assert_close(precode(again, H).W, precode(network, H).W, rtol=0, atol=0)
    weights = sum(layer.bits[0] * layer.weight.numel() for layer in network._linears().values())
    wide = sum(2 * layer.out_features + 1 for layer in network._linears().values())
    assert stored_bytes(network) == -(-weights // 8) + 2 * wide
    assert Path(path).stat().st_size < stored_bytes(network) + 4000
    wanted = "weights of 4, 8, 16 bits, inputs of layers of 4, 8, 16 bits"
    assert precoder_size(path)["numbers"] == wanted


@pytest.mark.parametrize("size", [(1, 4), (7, 5), (8, 8)])
@pytest.mark.parametrize("kind", ["4", "mixed"])
def test_the_loops_round_weights_and_inputs_as_torch_does(kind: str, size: tuple[int, int]) -> None:
    network = mixed() if kind == "mixed" else rounded(kind)
    H = channels(11, *size)
    power = torch.logspace(-2, 4, 11, dtype=torch.float64)
    one = torch.ones_like(power)
    with torch.no_grad():
        wanted = precode(network, H, power, one, guard=False).rate.sum(-1) * math.log(2)
        ragged = precode_ragged(network, list(H), power.tolist(), guard=False)
    numbers = compile_network(network)
    given = Channels(H, power, one)
    found = given.network(numbers, guard=False, select=False).value
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)
    rates = torch.stack([each.rate.sum() for each in ragged]) * math.log(2)
    torch.testing.assert_close(rates, wanted, rtol=1e-6, atol=0)
    if size == (8, 8):  # inputs, too
        other = given.network(numbers._replace(grids=np.empty(0)), guard=False, select=False)
        assert ((other.value / wanted - 1).abs() > 1e-5).any()


def test_the_graph_for_onnx_rounds_as_torch_does() -> None:
    network = mixed()
    power = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)
    cell = observe(channels(3, 4, 4), power, 1.0, None)
    real = RealPrecoder(network)
    assert all(part.dtype == torch.float64 for part in real.weights)
    with torch.no_grad():
        wanted = run_network(network, cell)[-1]
        A = _block(cell.A.real, cell.A.imag)
        share = equal_shares(cell.weights)
        first = _look(A, share, _inverse(A, share))
        seen, q = real._layers(A, cell.weights, first)
    torch.testing.assert_close(seen.share, wanted.seen.share, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(q, wanted.q, rtol=1e-9, atol=1e-12)


def test_another_precision_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, rounded("4"))
    with pytest.raises(InputError, match="has its own bits"):
        load_precoder(path, precision="bf16")
    H, one = channels(3, 4, 6), torch.ones(3)
    by_loops = load_precoder(path, precision="auto")(H, 10 * one, one, None).W
    by_torch = load_precoder(path, solver="cg")(H, 10 * one, one, None).W
    found, wanted = (sum_rate(H, W, one) for W in (by_loops, by_torch))
    torch.testing.assert_close(found, wanted, rtol=2e-5, atol=0)


@pytest.mark.parametrize("change", ["lost", "unknown", "narrow"])
def test_a_card_with_other_bits_is_refused(change: str, tmp_path: Path) -> None:
    network = rounded("4")
    bits = dict(network.config["bits"])
    if change == "lost":
        del bits["layers.2.mix"]
    elif change == "unknown":
        bits["layers.9.mix"] = [4, 8]
    else:
        bits["layers.0.mix"] = [1, 8]
    card = ModelCard("model", "precoding", summary="", config=network.config | {"bits": bits})
    path = tmp_path / "model.safetensors"
    save_model_file(path, network.state_dict(), card)
    with pytest.raises(InputError, match=r"model\.safetensors: its card describes no usable"):
        load_precoder_network(str(path))
    wider = {name: [8, 8] for name in network.config["bits"]}
    card = dataclasses.replace(card, config=network.config | {"bits": wider})
    save_model_file(path, network.state_dict(), card)
    with pytest.raises(InputError, match="does not fit the network"):
        load_precoder_network(str(path))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(a) for a in arguments])


def test_train_rounds_and_every_command_runs_what_it_wrote(tmp_path: Path) -> None:
    small = ("--steps", 2, "--batch", 16, "--max-users", 3, "--max-antennas", 4)
    done = run("train", "-o", tmp_path / "a", "--bits", 4, *small)
    assert done.exit_code == 2
    assert "--init MODEL" in done.stderr
    made = {}
    for bits in ("4", "learn"):
        given = ("--init", "icgnn_precoder", "--bits", bits, "--json", "--quiet")
        done = run("train", "-o", tmp_path / bits, *given, *small)
        assert done.exit_code == 0, done.output
        told = json.loads(done.stdout)
        assert told["weight_bytes"] < 0.4 * stored_bytes(some_network())
        assert 0.7 < told["ratio_wmmse"] < told["ratio_wmmse_before"]
        card = (tmp_path / bits / "model.md").read_text()
        assert f"| weight_bytes | {told['weight_bytes']:.4g} |" in card
        made[bits] = told["model"]
    done = run("train", "-o", tmp_path / "b", "--init", made["4"], *small)
    assert done.exit_code == 2
    assert "is rounded already" in done.stderr
    given = ("--model", made["4"], "--method", "icgnn", "--method", "rzf", "--count", 5)
    done = run("eval", *given, "--no-bound", "--snr", 10, "--json")
    assert done.exit_code == 0, done.output
    sizes = {row["method"]: row["bytes"] for row in json.loads(done.stdout)["rows"]}
    assert sizes == {"icgnn": Path(made["4"]).stat().st_size, "rzf": None}


def test_models_tells_bytes_and_bits() -> None:
    done = run("models")
    assert done.exit_code == 0, done.output
    assert "numbers: 32 bits" in done.stdout
    assert "on disk: " in done.stdout
