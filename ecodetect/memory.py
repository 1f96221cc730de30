"""How much memory a scan takes, and the cuts that keep it under a limit.

Peak memory = what the process has already + the block cache + pixels on their way + what detectors work with.
None of these grows with the raster.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

import psutil

from ecodetect.detectors.protocol import Needs
from ecodetect.errors import UserError
from ecodetect.grid import Grid
from ecodetect.tiling import Plan, plan

MB = 1_000_000
# Libraries that writing loads later (pyogrio, Arrow), SQLite's cache, results on their way, the allocator's
# slack.
_RESERVE_BYTES = 110 * MB
_TILES = (2048, 1536, 1024, 768, 512, 384, 256, 128)
DEFAULT_LIMIT = 480 * MB  # for detectors without a network, when the user states none


@dataclass(frozen=True, slots=True)
class Layout:
    """How a raster is walked: cuts, threads, block cache, and the peak of memory they lead to (bytes)."""

    plan: Plan
    workers: int
    cache_bytes: int
    peak_bytes: int


def read_size(text: str) -> int:
    """Bytes of `2GB`, `500MB`; raises UserError for anything else."""
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([KMGT]?)i?B?", text.strip(), re.IGNORECASE)
    if found is None:
        raise UserError(f"--max-memory must be a size such as 500MB or 2GB; got '{text}'.")
    return int(float(found[1]) * 1000 ** " KMGT".index(found[2].upper() or " "))


def resident_bytes() -> int:
    """Memory that this process holds now."""
    return int(psutil.Process().memory_info().rss)


def lay_out(
    grid: Grid,
    needs: Needs,
    *,
    block_shape: tuple[int, int],
    scale: float,
    bytes_per_pixel: int,
    tile_px: int | None,
    workers: int,
    limit: int | None,
) -> Layout:
    """The largest tiles and the widest stripes that stay under the limit.

    block_shape : rows and columns of the file's blocks.
    scale : raster pixels per pixel of `grid` along one axis (1: not resampled).
    bytes_per_pixel : bytes that a pixel of the file takes decoded, all its bands.
    tile_px : the user's tile size; None: chosen here.
    limit : bytes; None: `DEFAULT_LIMIT` as an aim that may be missed.
    Raises UserError when the limit can't be kept, naming the least that works.
    """
    base = resident_bytes() + _RESERVE_BYTES
    aim = DEFAULT_LIMIT if limit is None else limit
    # A tile need not be larger than the raster.
    longest = max(128, 2 ** math.ceil(math.log2(max(grid.width, grid.height))))
    sizes = [tile_px] if tile_px is not None else [size for size in _TILES if size <= longest]
    least: Layout | None = None
    for tile in sizes:
        # Larger units read better; smaller ones take less memory.
        for unit in sorted({max(2048, tile), tile}, reverse=True):
            for threads in range(workers, 0, -1):
                cuts = plan(
                    grid,
                    tile_px=tile,
                    largest_px=needs.largest_px,
                    reach_px=needs.reach_px,
                    margin_px=needs.margin_px,
                    stride_px=needs.stride_px,
                    unit_px=min(unit, longest),
                )
                layout = _fill(cuts, needs, block_shape, scale, bytes_per_pixel, threads, base, aim)
                if layout.peak_bytes <= aim:
                    return layout
                if least is None or layout.peak_bytes < least.peak_bytes:
                    least = layout
    assert least is not None
    if limit is None:
        return least
    need = math.ceil(least.peak_bytes / MB / 10) * 10
    raise UserError(
        f"--max-memory {limit / MB:.0f}MB is too little for this raster and detector; "
        f"the least that works is {need}MB."
    )


def _fill(
    cuts: Plan, needs: Needs, block_shape: tuple[int, int], scale: float, bytes_per_pixel: int,
    workers: int, base: int, aim: int,
) -> Layout:  # fmt: skip
    """The peak of these cuts, with the block cache as wide as the rest of the limit allows."""
    unit_read = (cuts.unit_px + 2 * cuts.halo_px) * scale
    # One unit being read, one waiting, one in each worker; a read keeps its pixels and its mask.
    pixels = unit_read**2 * (bytes_per_pixel + 1) * (2 + workers)
    detecting = cuts.chip_px**2 * needs.bytes_per_pixel * workers
    rows, columns = block_shape
    # Blocks touched by one row of units, and one row of blocks more, so that none is decoded twice.
    cached_rows = min(math.ceil(unit_read / rows + 2), math.ceil(cuts.height * scale / rows) + 1) * rows
    full_width = (cuts.width * scale + 2 * columns) * cached_rows * bytes_per_pixel
    narrowest = (unit_read + 2 * columns) * cached_rows * bytes_per_pixel
    room = aim - base - pixels - detecting
    cache = int(min(full_width, max(room, narrowest)) * 1.1)
    wide = cache / 1.1 / (cached_rows * bytes_per_pixel) - 2 * columns
    stripe = int(max(cuts.unit_px, wide / scale - 2 * cuts.halo_px))
    peak = int(base + cache + pixels + detecting)
    return Layout(replace(cuts, stripe_px=stripe), workers, cache, peak)
