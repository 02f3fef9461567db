# SPDX-License-Identifier: Apache-2.0
"""What is odd about a case becomes a warning, and no clean case has one."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from base_case import affine, values_of

from fieldfare.medical.data.cases import find_case
from fieldfare.medical.data.doubts import doubts
from fieldfare.medical.data.loading import load
from fieldfare.medical.data.naming import MODALITIES
from fieldfare.medical.data.preparation import prepare

REAL = ("TCGA-FG-6692", "TCGA-DU-7294", "BraTS-GLI-00001-000")


def images() -> np.ndarray:
    return np.stack([values_of(name) for name in MODALITIES]).astype(np.float32)


def told(values: np.ndarray, grid: np.ndarray, missing: tuple[str, ...] = ()) -> list[str]:
    return doubts(prepare(values, grid, 2.0), missing)


def test_the_clean_case_has_none_and_each_fault_is_named() -> None:
    clean, grid = images(), affine()
    assert told(clean, grid) == []
    (text,) = told(clean[[1, 0, 2, 3]], grid)
    assert "t1 and t1ce are perhaps exchanged" in text
    (text,) = told(clean[[0, 1, 3, 2]], grid)
    assert "t2 and flair are perhaps exchanged" in text
    assert len(told(clean[[1, 0, 3, 2]], grid)) == 2
    for one, two in ((0, 1), (2, 3), (0, 3)):
        twice = clean.copy()
        twice[two] = twice[one] * 3
        (text,) = told(twice, grid)
        assert f"{MODALITIES[one]} and {MODALITIES[two]} are one and the same image" in text


@pytest.mark.parametrize("name", MODALITIES)
def test_a_mirrored_modality_is_named(name: str) -> None:
    turned = images()
    index = MODALITIES.index(name)
    turned[index] = turned[index, ::-1]
    (text,) = told(turned, affine())
    assert text.startswith(f"{name} is perhaps mirrored (left and right)")


def test_an_image_of_little_but_noise_is_not_taken_for_mirrored() -> None:
    """Its outline turned over lies elsewhere than the others', which is no knowledge of them."""
    values, inside = images(), images()[3] != 0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        noise = 100 + 30 * rng.standard_normal(inside.shape)
        values[3] = np.where(inside, 0.05 * values[3] + noise, 0)
        assert not any("mirrored" in text for text in told(values, affine()))


def test_a_field_of_view_of_6_mm_is_named_whatever_the_rest() -> None:
    slab = images()
    slab[..., :30] = 0
    slab[..., 33:] = 0
    text = told(slab, affine())[0]
    assert "only 6 mm of the brain between top and bottom" in text


def test_missing_modalities_are_not_missed() -> None:
    values = images()
    for missing in (("t1",), ("t1ce", "flair"), ("t1", "t1ce", "t2")):
        some = values.copy()
        some[[MODALITIES.index(name) for name in missing]] = 0
        assert told(some, affine(), missing) == []


@pytest.mark.parametrize("name", REAL)
def test_real_cases_have_none_and_their_faults_are_named(data: Path, name: str) -> None:
    loaded = load(find_case(data / "brain" / name))
    assert loaded.notes == []
    values, grid = loaded.images, loaded.reference.affine
    assert told(values, grid) == []
    assert "t1ce are perhaps exchanged" in told(values[[1, 0, 2, 3]], grid)[0]
    assert "flair are perhaps exchanged" in told(values[[0, 1, 3, 2]], grid)[0]
    for index, modality in enumerate(MODALITIES):
        turned = values.copy()
        turned[index] = turned[index, ::-1]
        (text,) = told(turned, grid)
        assert text.startswith(f"{modality} is perhaps mirrored")


def test_phantoms_of_many_seeds_have_none() -> None:
    pytest.importorskip("nilearn", reason="NILEARN IS NOT INSTALLED: phantoms are NOT tested")
    from fieldfare.medical.phantoms.generate import GENERATORS, make_phantom

    for seed, generator in itertools.product(range(3), GENERATORS):
        case = make_phantom(np.random.default_rng(seed), 3.0, generator)
        assert told(case.images, case.affine) == [], (seed, generator)
