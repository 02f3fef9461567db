# SPDX-License-Identifier: Apache-2.0
"""fieldfare search precoding-recipe and precoding-bits: spaces, costs, what comes of a choice."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fieldfare.common.cli import main
from fieldfare.common.errors import InputError
from fieldfare.common.search.tasks import Given, make_task
from fieldfare.wireless.networks.models import load_precoder_network
from fieldfare.wireless.precoding.commands import search_bits, search_recipe
from fieldfare.wireless.precoding.commands.search_bits import BitsSearch
from fieldfare.wireless.precoding.commands.search_recipe import RecipeSearch, settings_of
from fieldfare.wireless.training.validation import PrecoderValidation

RECIPES, BITS = search_recipe.SPACE, search_bits.SPACE


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few validation channels."""
    init = PrecoderValidation.__init__
    monkeypatch.setattr(PrecoderValidation, "__init__", lambda self, count: init(self, 4))


def test_recipes_are_counted_without_those_that_differ_in_silence_only() -> None:
    assert RECIPES.count() == 3 * 2 * (2 + 3) * 5 * 3 * 2 * 3 * 3 == 8100
    fewer = {gene: values for gene, values in RECIPES.genes.items() if gene in RECIPES.needs}
    others = {g: v for g, v in search_recipe.HAND_MADE.items() if g not in fewer}
    every = {
        RECIPES.canonical({**others, "optimiser": kind, **dict(zip(fewer, pair, strict=True))})
        for kind in RECIPES.genes["optimiser"]
        for pair in itertools.product(*fewer.values())
    }
    assert len(every) == 5


def test_a_recipe_says_how_the_loop_trains() -> None:
    made = settings_of(RECIPES.canonical(search_recipe.HAND_MADE), 200, 0, "cpu")
    assert made.fingerprint() == search_recipe.training_settings(200, 4e-3).fingerprint()
    plain = RECIPES.canonical({**search_recipe.HAND_MADE, "optimiser": "sgd", "momentum": 0.9})
    told = settings_of(plain, 200, 0, "cpu")
    assert (told.sgd_momentum, told.weight_decay) == (0.9, 0.0)
    task = RecipeSearch(Given())
    assert task.macs(plain) == task.macs(task.presets["icgnn_precoder"])


def test_bits_are_counted_by_their_product() -> None:
    assert BITS.count() == 4**6
    task = BitsSearch(Given())
    eight = BITS.canonical(dict.fromkeys(BITS.genes, 8))
    # a row of a layer: FEATURES and state in, mix of three states, head of two
    linears = search_bits.linear_layers(task.network)
    assert task.macs(eight) == 69 * 8 * sum(layer.weight.numel() for _, layer in linears)
    half = BITS.canonical({**eight, **{gene: 4 for gene in BITS.genes if "weights" in gene}})
    assert task.macs(half) == task.macs(eight) / 2
    for gene in BITS.genes:
        costs = [task.macs(BITS.canonical({**eight, gene: v})) for v in BITS.genes[gene]]
        assert costs == sorted(set(costs))
    with pytest.raises(InputError, match="a number of operations"):
        task.runner(eight)


def test_a_rounded_network_has_the_bits_of_its_genes(tmp_path: Path) -> None:
    task = BitsSearch(Given(steps=2))
    choice = BITS.sample(np.random.default_rng(1))
    target = tmp_path / "found.safetensors"
    quality = task.evaluate(choice, target, tmp_path / "work")
    network, card = load_precoder_network(str(target))
    bits = card.config["bits"]
    assert {name: tuple(pair) for name, pair in bits.items()} == {
        name: search_bits.bits_of(name, choice)
        for name, _ in search_bits.linear_layers(task.network)
    }
    assert quality == task.validate(network)["ratio"] == card.metrics[0].value


@pytest.mark.parametrize(
    ("name", "limit"), [("precoding-bits", "300kMAC"), ("precoding-recipe", "1.3MMAC")]
)
def test_the_command_plans_and_searches(tmp_path: Path, name: str, limit: str) -> None:
    common = ["search", name, "--steps", "2", "--limit", limit, "--evaluations", "4"]
    planned = CliRunner().invoke(main, [*common, "--dry-run", "--json"])
    assert planned.exit_code == 0, planned.output
    plan = json.loads(planned.stdout)
    assert plan["networks"] == make_task(name, Given()).space.count()
    assert plan["smallest"] < plan["largest"]
    done = CliRunner().invoke(main, [*common, "-o", str(tmp_path / "run"), "--quiet"])
    assert done.exit_code == 0, done.output
    load_precoder_network(str(tmp_path / "run/model.safetensors"))


@pytest.mark.parametrize("kind", [BitsSearch, RecipeSearch])
def test_a_file_of_channels_that_is_not_there_is_named(kind: type) -> None:
    with pytest.raises(InputError, match=r"channels\.npz: no such file"):
        kind(Given((Path("channels.npz"),)))
