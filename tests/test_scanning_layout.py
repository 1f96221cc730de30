"""A raster is walked so that little is decoded twice, in memory that doesn't grow with it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from ecodetect.detectors.protocol import Needs
from ecodetect.grid import Grid
from ecodetect.scanning import layout
from ecodetect.scanning.layout import Layout, PixelCost, lay_out

BLOCK = 512
NEEDS = Needs(bands=("red", "green", "blue"), largest_px=200.0)
NETWORK = replace(NEEDS, reach_px=100, bytes_per_pixel=400, cost=120.0, is_threaded=True)
ON_GPU = replace(NETWORK, is_threaded=False, on_gpu=True)


@pytest.fixture(autouse=True)
def _of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "resident_bytes", lambda: 110_000_000)


def laid(
    side: int, block: tuple[int, int] = (BLOCK, BLOCK), needs: Needs = NEEDS, *, batch: int = 1
) -> Layout:
    grid = Grid(side, side, (0.1, 0, 0, 0, -0.1, 0))
    pixel = PixelCost(block, cached_bytes=3, chip_bytes=3)
    return lay_out(grid, needs, pixel, tile_px=None, workers=None, limit=None, batch=batch)


def test_what_a_unit_sees_ends_where_blocks_end() -> None:
    cuts = laid(20_000).cuts
    ends = {cuts.unit(number).read for number in (0, 1, cuts.columns, cuts.columns + 1)}
    assert all(read.right % BLOCK == 0 and read.bottom % BLOCK == 0 for read in ends)


def test_blocks_are_decoded_hardly_more_than_once() -> None:
    cuts = laid(20_000).cuts
    across = max(1, cuts.stripe_px // cuts.unit_px)
    decoded = 0
    for left in range(0, cuts.columns, across):
        first = cuts.unit(left).read
        last = cuts.unit(min(left + across, cuts.columns) - 1).read
        total = math.ceil(cuts.width / BLOCK)
        decoded += min(math.ceil(last.right / BLOCK), total) - max(first.x // BLOCK, 0)
    assert decoded <= 1.2 * math.ceil(cuts.width / BLOCK)


@pytest.mark.parametrize("side", [20_000, 60_000, 200_000])
def test_memory_does_not_grow_with_the_raster(side: int) -> None:
    assert laid(side).peak_bytes <= 1.1 * laid(5_000).peak_bytes


@pytest.mark.parametrize("needs", [NEEDS, NETWORK, ON_GPU])
def test_what_a_process_holds_already_changes_no_cuts(needs: Needs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook, or the driver of a GPU: for a network it made tiles of 128 px, seen 18 times."""
    monkeypatch.setattr(layout, "resident_bytes", lambda: 600_000_000)
    plain = laid(20_000, needs=needs).cuts
    monkeypatch.setattr(layout, "resident_bytes", lambda: 3_000_000_000)
    assert laid(20_000, needs=needs).cuts == plain


def test_a_gpu_need_not_wait_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "core_count", lambda: 16)
    on_cpu, on_gpu = (laid(20_000, needs=needs) for needs in (NETWORK, ON_GPU))
    assert on_cpu.cuts.tile_px >= 512
    assert on_gpu.cuts.tile_px >= 512
    assert on_gpu.workers > 1


def test_a_thread_beside_the_network_makes_the_next_tile_ready() -> None:
    made = laid(20_000, needs=NETWORK)
    assert (made.workers, made.threads) == (1, 2)
    assert laid(20_000).threads == laid(20_000).workers  # detectors without a network share the cores


@pytest.mark.parametrize("batch", [2, 4, 5, 8, 16])
def test_a_unit_has_as_many_tiles_as_are_looked_at_together(batch: int) -> None:
    cuts = laid(20_000, needs=NETWORK, batch=batch).cuts
    tiles = cuts.tiles_per_unit**2
    assert tiles >= batch
    # Shared out evenly: what is added to fill the last batch is less than one for each.
    size = cuts.batch(batch)
    batches = math.ceil(tiles / size)
    assert size <= batch
    assert 0 <= batches * size - tiles < batches


def test_one_tile_stays_one_tile() -> None:
    # Moved onto blocks a picture of one tile would be cut into four.
    assert len(laid(1000).cuts) == 1


@pytest.mark.parametrize("block", [(1, 20_000), (256, 512)])
def test_strips_and_oblong_blocks_are_walked_from_the_corner(block: tuple[int, int]) -> None:
    assert laid(20_000, block).cuts.offset_px == 0


@pytest.mark.parametrize("stride", [16, 32])
def test_cuts_lie_on_the_stride_of_a_network(stride: int) -> None:
    needs = Needs(bands=("red",), largest_px=100.0, reach_px=90, stride_px=stride, is_threaded=True)
    cuts = laid(20_000, needs=needs).cuts
    for number in (0, 1, len(cuts) - 1):
        assert all(tile.read.x % stride == tile.read.y % stride == 0 for tile in cuts.unit(number).tiles)
