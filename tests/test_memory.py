"""A raster is walked so that little is decoded twice, in memory that doesn't grow with it."""

from __future__ import annotations

import math

import pytest

from ecodetect import memory
from ecodetect.detectors.protocol import Needs
from ecodetect.grid import Grid
from ecodetect.memory import Layout, Source, lay_out

BLOCK = 512
NEEDS = Needs(bands=("red", "green", "blue"), largest_px=200.0)


@pytest.fixture(autouse=True)
def _of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "resident_bytes", lambda: 110_000_000)


def laid(side: int, block: tuple[int, int] = (BLOCK, BLOCK), needs: Needs = NEEDS) -> Layout:
    grid = Grid(side, side, (0.1, 0, 0, 0, -0.1, 0))
    source = Source(block, cached_bytes=3, chip_bytes=3)
    return lay_out(grid, needs, source, tile_px=None, workers=None, limit=None)


def test_what_a_unit_sees_ends_where_blocks_end() -> None:
    plan = laid(20_000).plan
    ends = {plan.unit(number).read for number in (0, 1, plan.columns, plan.columns + 1)}
    assert all(read.right % BLOCK == 0 and read.bottom % BLOCK == 0 for read in ends)


def test_blocks_are_decoded_hardly_more_than_once() -> None:
    plan = laid(20_000).plan
    across = max(1, plan.stripe_px // plan.unit_px)
    decoded = 0
    for left in range(0, plan.columns, across):
        first = plan.unit(left).read
        last = plan.unit(min(left + across, plan.columns) - 1).read
        total = math.ceil(plan.width / BLOCK)
        decoded += min(math.ceil(last.right / BLOCK), total) - max(first.x // BLOCK, 0)
    assert decoded <= 1.2 * math.ceil(plan.width / BLOCK)


@pytest.mark.parametrize("side", [20_000, 60_000, 200_000])
def test_memory_does_not_grow_with_the_raster(side: int) -> None:
    assert laid(side).peak_bytes <= 1.1 * laid(5_000).peak_bytes


def test_what_a_notebook_holds_already_changes_no_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = laid(20_000).plan
    monkeypatch.setattr(memory, "resident_bytes", lambda: 2_000_000_000)
    assert laid(20_000).plan == plain


def test_one_tile_stays_one_tile() -> None:
    # Moved onto blocks a picture of one tile would be cut into four.
    assert len(laid(1000).plan) == 1


@pytest.mark.parametrize("block", [(1, 20_000), (256, 512)])
def test_strips_and_oblong_blocks_are_walked_from_the_corner(block: tuple[int, int]) -> None:
    assert laid(20_000, block).plan.offset_px == 0


@pytest.mark.parametrize("stride", [16, 32])
def test_cuts_lie_on_the_stride_of_a_network(stride: int) -> None:
    needs = Needs(bands=("red",), largest_px=100.0, reach_px=90, stride_px=stride, is_threaded=True)
    plan = laid(20_000, needs=needs).plan
    for number in (0, 1, len(plan) - 1):
        assert all(tile.read.x % stride == tile.read.y % stride == 0 for tile in plan.unit(number).tiles)
