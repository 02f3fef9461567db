# SPDX-License-Identifier: Apache-2.0
import itertools

import numpy as np
import pytest

from fieldfare.common.elastic.genes import Space
from fieldfare.common.search.cells import (
    CellSpace,
    canonical_cell,
    cell_neighbours,
    cell_space,
    count_cells,
)

PLAIN = Space({"width": (4, 8)})


def small(nodes: int = 2, operations: tuple[str, ...] = ("skip", "sep3")) -> CellSpace:
    return cell_space(PLAIN, nodes, operations, ("normal",))


def test_one_node_is_a_pair_of_operations_on_two_inputs() -> None:
    # 2 inputs x 3 operations = 6 terms; sums of two, with the same one twice: 6 * 7 / 2
    assert count_cells(1, 3) == 21


def test_two_nodes_by_hand() -> None:
    # one operation: 00, 01 or 11 a node. Beside each other: 6 pairs of 3; in a row: the second adds
    # the first to 0, 1 or itself, 3 times 3
    assert count_cells(2, 1) == 6 + 9


def test_the_published_cell_of_5_nodes_and_13_operations_is_one_of_380_983_342_099_113() -> None:
    orders = 351 * 780 * 1378 * 2145 * 3081  # at most 5! of which are one cell
    assert orders / 120 < count_cells(5, 13) == 380_983_342_099_113 < orders


@pytest.mark.parametrize(("nodes", "operations"), [(1, 2), (2, 2), (3, 1), (3, 2), (4, 1)])
def test_the_count_is_that_of_all_written_out(nodes: int, operations: int) -> None:
    def edges(number: int) -> list[tuple[int, int]]:
        return list(itertools.product(range(2 + number), range(operations)))

    sums = [list(itertools.combinations_with_replacement(edges(n), 2)) for n in range(nodes)]
    cells = {canonical_cell(tuple(cell)) for cell in itertools.product(*sums)}
    assert len(cells) == count_cells(nodes, operations)


def test_a_space_counts_and_writes_out_the_same() -> None:
    space = cell_space(PLAIN, 1, ("skip", "sep3"))
    assert space.count() == len(set(space.every())) == len(list(space.every())) == 2 * 10 * 10
    assert small().count() == len(list(small().every()))


def test_isomorphic_cells_are_one() -> None:
    first = canonical_cell((((0, 0), (1, 1)), ((1, 0), (1, 0)), ((2, 1), (3, 0))))
    second = canonical_cell((((1, 0), (1, 0)), ((1, 1), (0, 0)), ((2, 0), (3, 1))))
    assert first == second
    other = canonical_cell((((1, 0), (1, 0)), ((1, 1), (0, 0)), ((2, 1), (3, 0))))
    assert other != first
    assert canonical_cell(first) == first
    for broken in ((((2, 0), (0, 0)),), (((7, 0), (0, 0)),)):
        with pytest.raises(ValueError, match="is no cell"):
            canonical_cell(broken)  # type: ignore[arg-type]


def test_choices_are_canonical_and_come_back_from_their_cells() -> None:
    space, rng = cell_space(PLAIN, 3, ("skip", "sep3", "max3")), np.random.default_rng(0)
    for _ in range(20):
        choice = space.sample(rng)
        assert choice == space.canonical(choice)
        again = {**choice, **space.genes_of("normal", space.cell(choice, "normal"))}
        assert space.canonical(again) == choice
        assert space.encode(choice).shape == (2 + 2 * 2 * (2 + 3 + 4 + 3 * 3),)
    assert space.largest() == space.canonical(space.largest())
    swapped = dict(choice)
    for gene in ("from", "op"):
        one, two = (f"normal1_{gene}{side}" for side in (1, 2))
        swapped[one], swapped[two] = choice[two], choice[one]
    assert space.canonical(swapped) == choice


def test_neighbours_are_mutual_and_one_change_away() -> None:
    rng = np.random.default_rng(1)
    space = small(3)
    cell = space.cell(space.sample(rng), "normal")
    found = cell_neighbours(cell, 2)
    assert cell not in found
    assert len(set(found)) == len(found)
    assert all(cell in cell_neighbours(other, 2) for other in found)
    # one node of one operation: 00 -> 01; 01 -> 00, 11
    assert set(cell_neighbours((((0, 0), (0, 0)),), 1)) == {(((0, 0), (1, 0)),)}
    assert len(cell_neighbours((((0, 0), (1, 0)),), 1)) == 2
    choice = space.sample(rng)
    near = space.neighbours(choice)
    assert choice not in near
    assert len(set(near)) == len(near)
    assert all(choice in space.neighbours(one) for one in near[:20])


def test_what_cannot_be_is_refused() -> None:
    genes = {"a": (1, 2), "normal1_from1": (0, 1)}
    with pytest.raises(ValueError, match="always speaks"):
        CellSpace(genes, {"normal1_from1": ("a", (2,))}, _own=frozenset({"normal1_from1"}))
    with pytest.raises(ValueError, match="cannot be restricted"):
        small().restricted({"width": (4,)})
