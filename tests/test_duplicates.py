"""Individuals that appear twice count once, whatever the order of the rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecodetect.annotations.duplicates import SHARE, repeated

coordinate = st.integers(-40, 40).map(lambda n: n / 4)
size = st.one_of(st.just(float("nan")), st.integers(1, 60).map(lambda n: n / 2))
rows = st.lists(st.tuples(coordinate, coordinate, size, st.sampled_from(["a", "b"])), max_size=30)


def found(table: list[tuple[float, float, float, str]]) -> np.ndarray:
    xy = np.array([row[:2] for row in table], np.float64).reshape(-1, 2)
    return repeated(
        xy, np.array([row[2] for row in table]), np.array([row[3] for row in table], dtype=object)
    )


def one_by_one(table: list[tuple[float, float, float, str]]) -> int:
    """How many are repeated, each compared with all that count."""
    kept: list[tuple[float, float, float, str]] = []
    for row in sorted(table, key=lambda row: (-np.nan_to_num(row[2]), row[0], row[1])):
        limit = max(SHARE * float(np.nan_to_num(row[2])), 1e-6)
        if not any(
            row[3] == other[3] and np.hypot(row[0] - other[0], row[1] - other[1]) <= limit for other in kept
        ):
            kept.append(row)
    return len(table) - len(kept)


@given(rows)
@settings(max_examples=30)
def test_cells_find_what_comparing_all_with_all_finds(table: list[tuple[float, float, float, str]]) -> None:
    assert int(found(table).sum()) == one_by_one(table)


@given(rows, st.randoms())
@settings(max_examples=30)
def test_the_order_of_the_rows_makes_no_difference(
    table: list[tuple[float, float, float, str]], random: object
) -> None:
    shuffled = list(table)
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    def kept(some: list[tuple[float, float, float, str]]) -> list[str]:
        return sorted(str(row) for row, twice in zip(some, found(some), strict=True) if not twice)

    assert kept(table) == kept(shuffled)


@pytest.mark.parametrize("offset", [0.0, 1e9, -1e9])
def test_a_fifth_of_the_smaller_ones_size(offset: float) -> None:
    def pair(step: float, one: float, other: float) -> list[bool]:
        return found([(offset, 5.0, one, "a"), (offset + step, 5.0, other, "a")]).tolist()

    assert pair(1.75, 10, 10) == [False, True]
    assert pair(2.25, 10, 10) == [False, False]
    assert pair(1.5, 100, 5) == [False, False]
    assert pair(0.75, 5, 100) == [True, False]  # the larger one stays
    assert pair(0.0, np.nan, np.nan).count(True) == 1
    assert pair(0.25, np.nan, np.nan) == [False, False]
    assert found([(0, 0, 9, "a"), (0, 0, 9, "b")]).tolist() == [False, False]


def test_a_chain_does_not_become_one() -> None:
    assert int(found([(1.5 * n, 0.0, 10.0, "a") for n in range(9)]).sum()) == 4


def test_a_hundred_thousand_on_one_spot_take_no_time() -> None:
    random = np.random.default_rng(1)
    xy = np.repeat(random.uniform(0, 30, (20_000, 2)), 2, axis=0)
    twice = repeated(xy, np.full(len(xy), 50.0), np.full(len(xy), "a", dtype=object))
    assert 0 < len(xy) - int(twice.sum()) < 30
    assert not len(repeated(np.empty((0, 2)), np.empty(0), np.empty(0, dtype=object)))
