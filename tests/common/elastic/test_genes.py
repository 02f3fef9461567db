# SPDX-License-Identifier: Apache-2.0
"""Spaces: canonical choices, exact counts against writing all out, one-hot codes, neighbours."""

import numpy as np
import pytest

from fieldfare.common.elastic.genes import Choice, Space
from fieldfare.common.elastic.mobilenet import space

SMALL = Space(
    {"depth": (1, 2, 3), "kernel0": (3, 5), "kernel1": (3, 5), "kernel2": (3, 5), "width": (8, 16)},
    {"kernel1": ("depth", (2, 3)), "kernel2": ("depth", (3,))},
)
NESTED = Space(
    {"a": (0, 1), "b": ("x", "y", "z"), "c": (1.0, 2.0)},
    {"b": ("a", (1,)), "c": ("b", ("z",))},
)


@pytest.mark.parametrize(("genes", "count"), [(SMALL, 2 * (2 + 4 + 8)), (NESTED, 1 + 2 + 2)])
def test_the_count_is_the_number_of_choices_written_out(genes, count):
    every = list(genes.every())
    assert genes.count() == count == len(every) == len(set(every))
    assert all(genes.canonical(choice) == choice for choice in every)


def test_choices_that_differ_in_silent_genes_are_one():
    first = SMALL.canonical({"depth": 1, "kernel0": 3, "kernel1": 3, "kernel2": 3, "width": 8})
    second = SMALL.canonical({"depth": 1, "kernel0": 3, "width": 8})
    assert first == second
    assert hash(first) == hash(second)
    assert len({first, second}) == 1
    assert np.array_equal(SMALL.encode(first), SMALL.encode(second))
    assert NESTED.canonical({"a": 0, "b": "z", "c": 1.0}) == {"a": 0, "b": "z", "c": 2.0}


@pytest.mark.parametrize("genes", [SMALL, NESTED])
def test_codes_tell_all_choices_apart(genes):
    codes = {genes.encode(choice).tobytes() for choice in genes.every()}
    assert len(codes) == genes.count()
    assert len(genes.encode(genes.largest())) == sum(len(v) for v in genes.genes.values())


@pytest.mark.parametrize("genes", [SMALL, NESTED])
def test_neighbours_are_those_that_differ_in_one_gene_that_speaks(genes):
    for choice in genes.every():
        near = genes.neighbours(choice)
        assert len(near) == len(set(near))
        assert choice not in near
        for other in near:
            back = [genes.canonical({**choice, gene: other[gene]}) for gene in genes.genes]
            assert other in back


def test_samples_are_of_the_space_and_seeded():
    every = set(SMALL.every())
    drawn = [SMALL.sample(np.random.default_rng(seed)) for seed in range(300)]
    assert set(drawn) == every
    assert drawn[7] == SMALL.sample(np.random.default_rng(7))


def test_largest_and_smallest():
    assert SMALL.largest() == {"depth": 3, "kernel0": 5, "kernel1": 5, "kernel2": 5, "width": 16}
    assert SMALL.smallest() == {"depth": 1, "kernel0": 3, "kernel1": 5, "kernel2": 5, "width": 8}


def test_a_restricted_space_keeps_what_silences():
    deep = space(1, depths=(2, 3, 4)).restricted({"depth0": (2,)})
    assert deep.count() == 9**2
    with pytest.raises(ValueError, match=r"gene depth0: \(5,\) are not all"):
        deep.restricted({"depth0": (5,)})
    with pytest.raises(ValueError, match="no gene is named depth9"):
        deep.restricted({"depth9": (5,)})


def test_what_is_no_choice_is_refused():
    with pytest.raises(ValueError, match="gene depth: 7 is none of"):
        SMALL.canonical({"depth": 7, "kernel0": 3, "width": 8})
    with pytest.raises(ValueError, match="gene kernel1 is missing"):
        SMALL.canonical({"depth": 2, "kernel0": 3, "width": 8})
    with pytest.raises(ValueError, match="no gene is named colour"):
        SMALL.canonical({**SMALL.largest(), "colour": 1})
    with pytest.raises(ValueError, match="needs values, each once"):
        Space({"a": (1, 1)})
    with pytest.raises(ValueError, match="gene a needs itself"):
        Space({"a": (1,), "b": (1,)}, {"a": ("b", (1,)), "b": ("a", (1,))})
    with pytest.raises(ValueError, match="the space has no such gene"):
        Space({"a": (1,)}, {"a": ("b", (1,))})
    with pytest.raises(TypeError, match="'x' is not a whole number"):
        Choice({"b": "x"}).number("b")
