# SPDX-License-Identifier: Apache-2.0
"""What a model knows: distances, expectations, alarms, and their way through a model's file."""

import numpy as np
import pytest
import torch
from torch import nn

from fieldfare.common.commands.trust import warning
from fieldfare.common.console.shared import TrustOptions
from fieldfare.common.errors import InputError
from fieldfare.common.trust.expectation import expectation
from fieldfare.common.trust.familiar import familiar
from fieldfare.common.trust.features import Tap
from fieldfare.common.trust.knowledge import PART, Samples, Watch, learn, read_knowledge
from fieldfare.common.weights import ModelCard, load_model_file, save_model_file

FEATURES = 12


def drawn(count: int, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (count, FEATURES))


def known():
    """A model of two places, whose quality falls as inputs move away from them."""
    training = {"here": [drawn(200, 0.0, 1)], "there": [drawn(200, 4.0, 2)]}
    shifts = np.repeat(np.linspace(0, 6, 13), 30)
    features = np.concatenate([drawn(30, -s, 10 + i) for i, s in enumerate(np.linspace(0, 6, 13))])
    quality = np.clip(0.8 - 0.12 * shifts, 0, 1)
    validation = Samples([features], np.zeros((len(shifts), 0)), quality, home=shifts == 0)
    return learn(["stem"], training, validation, quality="IoU")


def judged(knowledge, features):
    watch = Watch(knowledge)
    watch.add([features])
    return watch.judgement()


def test_a_tap_keeps_the_first_forward_and_leaves_the_network_alone():
    network = nn.Sequential(nn.Identity(), nn.ReLU())
    with Tap(network, ["0", "1"]) as tap:
        network(torch.full((1, 1, 2, 2), -3.0))
        network(torch.full((1, 1, 2, 2), 7.0))
        first, second = tap.take()
        with pytest.raises(RuntimeError, match="has not run"):
            tap.take()
    assert (first[0, 0], second[0, 0]) == (-3.0, 0.0)
    assert not network[0]._forward_hooks


def test_distances_are_about_one_at_home_and_grow_with_the_shift():
    known_features = familiar({"a": drawn(500, 0.0, 1)})
    means = [known_features.distances(drawn(100, s, 7)).mean() for s in (0.0, 1.0, 3.0)]
    assert means[0] == pytest.approx(1.0, abs=0.1)
    assert means[0] < means[1] < means[2]


def test_a_direction_that_never_varied_counts_without_deciding_alone():
    constant = drawn(100)
    constant[:, 0] = 5.0
    distances = familiar({"a": constant}).distances(constant)
    assert np.isfinite(distances).all()
    assert distances.max() < 5


def test_features_that_are_not_numbers_are_infinitely_far():
    features = drawn(1)
    features[0, 0] = np.nan
    assert np.isinf(familiar({"a": drawn(50)}).distances(features)).all()


def test_expected_quality_never_falls_as_the_index_rises():
    rng = np.random.default_rng(0)
    signs = rng.normal(size=(400, 2))
    quality = np.clip(0.5 - 0.2 * signs[:, 0] + rng.normal(0, 0.1, 400), 0, 1)
    curve = expectation(signs, quality)
    low, middle, high = curve.quality(np.linspace(-1, 2, 50))
    for values in (low, middle, high):
        assert (np.diff(values) >= 0).all()
    assert (low <= middle + 1e-9).all()
    assert (middle <= high + 1e-9).all()
    ranks = [np.argsort(np.argsort(values)) for values in (curve.indices(signs), quality)]
    assert np.corrcoef(*ranks)[0, 1] > 0.85


def test_home_is_silent_and_elsewhere_is_not():
    knowledge = known()
    home = judged(knowledge, drawn(50, 0.0, 90))
    assert not home.alarm
    assert home.nearest == "here"
    assert home.sentence().startswith("like what the model knows; expected IoU 0.")
    away = judged(knowledge, drawn(50, -5.0, 91))
    assert away.alarm
    assert away.beyond == 1.0
    assert away.high < home.low
    assert "unlike what the model knows (distance" in away.sentence()
    assert judged(knowledge, drawn(50, 4.0, 92)).nearest == "there"


def test_one_in_a_hundred_home_samples_is_over_a_limit():
    knowledge = known()
    assert 0 <= knowledge.false_alarms <= 0.01 + 1 / 30


def test_order_and_parts_make_no_difference():
    knowledge = known()
    features = drawn(40, -1.0, 5)
    watch = Watch(knowledge)
    for part in np.array_split(features[::-1], 7):
        watch.add([part])
    assert watch.judgement() == judged(knowledge, features)
    assert Watch(knowledge).judgement() is None


def test_signs_of_the_caller_count():
    rng = np.random.default_rng(3)
    features, entropy = drawn(300, 0.0, 4), rng.uniform(0, 1, (300, 1))
    validation = Samples([features], entropy, 1 - entropy[:, 0], home=np.ones(300, bool))
    knowledge = learn(["stem"], {"a": [features]}, validation, signs=["entropy"], quality="IoU")
    watch = Watch(knowledge)
    watch.add([features[:20]], np.full((20, 1), 5.0))
    judgement = watch.judgement()
    assert judgement.alarm
    assert judgement.distance <= 1
    assert judgement.sentence().startswith("the model is unsure here: expected IoU")


def test_it_travels_in_the_model_file_beside_the_network(tmp_path):
    knowledge = known()
    path = tmp_path / "model.safetensors"
    card = ModelCard("toy", "toy", "A toy.", {})
    tensors = {"weight": torch.ones(2)}
    save_model_file(path, tensors, card, {PART: knowledge.to_tensors()})
    assert list(load_model_file(path)[1]) == ["weight"]
    read = read_knowledge(path)
    assert read.summary() == knowledge.summary()
    assert "knows here, there (400 samples); IoU 0.80 at home" in read.summary()
    for seed, shift in ((6, 0.0), (7, -3.0)):
        features = drawn(30, shift, seed)
        stored, fresh = judged(read, features), judged(knowledge, features)
        assert stored.nearest == fresh.nearest
        assert stored.distance == pytest.approx(fresh.distance, rel=1e-3)
        assert stored.expected == pytest.approx(fresh.expected, rel=1e-3)


def test_a_file_that_says_nothing_and_one_that_is_damaged(tmp_path):
    card = ModelCard("toy", "toy", "A toy.", {})
    silent, damaged = tmp_path / "silent.safetensors", tmp_path / "damaged.safetensors"
    save_model_file(silent, {"weight": torch.ones(2)}, card)
    assert read_knowledge(silent) is None
    parts = {PART: known().to_tensors() | {"about": torch.zeros(3, dtype=torch.uint8)}}
    save_model_file(damaged, {}, card, parts)
    with pytest.raises(InputError, match=r"damaged\.safetensors: not a model's knowledge"):
        read_knowledge(damaged)


def test_strict_fails_where_else_a_line_is_said():
    knowledge = known()
    away, home = judged(knowledge, drawn(9, -5.0)), judged(knowledge, drawn(50, 0.0, 90))
    assert warning(home, "a.tif", TrustOptions(strict=True)) is None
    assert warning(None, "a.tif", TrustOptions(strict=True)) is None
    assert warning(away, "a.tif", TrustOptions()).startswith("a.tif: unlike what the model knows")
    with pytest.raises(InputError, match=r"a\.tif: unlike .*nothing was written"):
        warning(away, "a.tif", TrustOptions(strict=True))
