"""The layout of a scan: the fastest tiles, threads and block cache whose memory stays under a limit.

Peak memory = memory of the process before + block cache + pixels in queues + working memory of detectors.
None of these grows with the raster, once it is wider than a stripe.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ecodetect.cores import core_count
from ecodetect.detectors.protocol import Needs
from ecodetect.errors import UserError
from ecodetect.grid import Grid
from ecodetect.scanning.process_memory import resident_bytes
from ecodetect.scanning.tiling import Cuts, cut_grid

MB = 1_000_000
# Results in queues, SQLite's cache, threads, and memory that the allocator doesn't return.
_SLACK_BYTES = 60 * MB
# Libraries for writing (pyogrio, Arrow), and features that are being written. Nothing is read then.
_WRITING_BYTES = 140 * MB
_TILES = (2048, 1536, 1024, 768, 512, 384, 256, 128)
# Parallel detectors are hardly faster on larger tiles, whose arrays exceed the caches, unless halos are wide;
# and reading and detecting overlap less (1536: 1.2 times the slower of both, 1024: 1.08).
_AMPLE_TILE_PX, _AMPLE_HALOS = 1024, 4
_EVEN_CUTS = 12  # in rasters up to this many tiles wide, tiles are made to fit; wider ones waste little
UNIT_PX = 2048  # about the size of a unit of several tiles
DEFAULT_LIMIT = 480 * MB  # for detectors without a network, unless the user sets one
_ROOM_BYTES = 360 * MB  # on top of what a notebook holds already; the command holds 110 MB
# Libraries take 250 MB of it before the first pixel. With the rest, pixels are seen 1.5 to 2.7 times, by how
# far the network sees.
NETWORK_LIMIT = 1350 * MB
# torch (600 MB), a notebook, or a GPU driver may hold so much before the first tile that tiles get this room.
_NETWORK_ROOM_BYTES = 1050 * MB
# No scan takes more unless its limit allows it, however large its objects: others may need the rest.
_MOST_BYTES = 3000 * MB
# CPU cost of a tile where the network runs on a GPU (scaling, copying, decoding), and the number of tiles
# that are processed at once then.
_GPU_COST, _GPU_WORKERS = 10.0, 4
_GPU_BYTES = (16, 48)  # in memory, for each band of a pixel and in addition
_BESIDE_BYTES = (4, 24)  # the same for a tile beside the one that the network sees: its input or its answers
# Layouts within this share of the least cost are equally good; the one with the least memory is chosen. A
# network's cost is known better, and its time counts more than memory below the limit.
_AS_GOOD, _AS_GOOD_NETWORK = 0.1, 0.02
# Costs, where decoding a pixel is 1, beside `Needs.cost`; measured on RGB in deflate.
_COPYING = 0.2  # out of the block cache, per pixel of a unit
_MANY = 4  # from this number of units across a raster, their alignment with the file's blocks matters
_PER_UNIT = 150_000  # overhead, a transaction
_PER_TILE = 20_000


@dataclass(frozen=True, slots=True)
class Layout:
    """How a raster is processed: tiles, threads, block cache, and the resulting peak memory (bytes).

    workers : tiles that are searched at once.
    threads : that detect. Where a network takes all cores for a tile, one more makes the next tile ready and
        reads the answers to the last.
    """

    cuts: Cuts
    workers: int
    threads: int
    cache_bytes: int
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class PixelCost:
    """The memory of pixels.

    block_shape : rows and columns of its blocks.
    cached_bytes : of a pixel in the block cache, all its bands.
    chip_bytes : of a pixel in a chip, the needed bands.
    scale : its pixels per pixel of the scanned grid, along one axis (1: not resampled).
    map_bytes : of a pixel of that grid in the map of scores; 0 where none is kept.
    """

    block_shape: tuple[int, int]
    cached_bytes: int
    chip_bytes: int
    scale: float = 1.0
    map_bytes: float = 0.0


def read_size(text: str) -> int:
    """Bytes of `2GB`, `500MB`; raises UserError for anything else."""
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([KMGT]?)i?B?", text.strip(), re.IGNORECASE)
    if found is None:
        raise UserError(
            f"A limit of memory is a size such as 500MB or 2GB; got '{text}'.", parameter="max_memory"
        )
    return int(float(found[1]) * 1000 ** " KMGT".index(found[2].upper() or " "))


def lay_out(
    grid: Grid,
    needs: Needs,
    pixel: PixelCost,
    *,
    tile_px: int | None,
    workers: int | None,
    limit: int | None,
    batch: int = 1,
) -> Layout:
    """The fastest layout that stays under the limit.

    tile_px : the user's tile size; None: chosen here.
    workers : number of tiles processed at once that the user wants, fewer if memory is short; None: chosen
        here.
    limit : bytes; None: `DEFAULT_LIMIT` or `NETWORK_LIMIT` as a target that may be exceeded, up to 3 GB.
    batch : batch size: tiles detected at once, so a unit should have that many.
    Raises UserError when the limit is too low, naming the lowest that works.
    """
    held = resident_bytes()
    if needs.on_gpu:
        needs = _left_for_the_cpu(needs)
    cores = core_count()
    most_workers = workers or (min(cores, _GPU_WORKERS) if needs.on_gpu else cores)
    found = [
        (_cost(cuts, needs, pixel, threads, cores), _fill(cuts, needs, pixel, threads, held, batch))
        for cuts in _possible(grid, needs, pixel, tile_px, batch)
        for threads in range(most_workers, 0, -1)
    ]
    usual, room = (NETWORK_LIMIT, _NETWORK_ROOM_BYTES) if needs.is_network else (DEFAULT_LIMIT, _ROOM_BYTES)
    aim = limit or max(usual, held + room)
    fitting = [(cost, layout) for cost, layout in found if layout.peak_bytes <= aim]
    if fitting and workers is not None:
        most = max(layout.workers for _, layout in fitting)
        fitting = [(cost, layout) for cost, layout in fitting if layout.workers == most]
    if fitting:
        good = min(cost for cost, _ in fitting) * (1 + (_AS_GOOD_NETWORK if needs.is_network else _AS_GOOD))
        chosen = min((layout.peak_bytes, cost, n) for n, (cost, layout) in enumerate(fitting) if cost <= good)
        return fitting[chosen[-1]][1]
    smallest = min((layout for _, layout in found), key=lambda layout: layout.peak_bytes)
    need = math.ceil(smallest.peak_bytes / MB / 10) * 10
    if limit is None:
        if smallest.peak_bytes <= max(_MOST_BYTES, held + _MOST_BYTES // 2):
            return smallest
        seen = smallest.cuts.halo_px
        raise UserError(
            f"Each tile is to be seen with {seen} px around it, for which memory of {_told(need)} is needed;"
            " allow that much, or take a detector of smaller objects.",
            parameter="max_memory",
        )
    raise UserError(
        f"{limit / MB:.0f}MB of memory is too little for this raster and detector; the least that works is"
        f" {need}MB.",
        parameter="max_memory",
    )


def _possible(grid: Grid, needs: Needs, pixel: PixelCost, tile_px: int | None, batch: int) -> Iterator[Cuts]:
    """All cuts that are compared: tiles and units of different sizes, in stripes or not."""
    # A tile need not be larger than the raster.
    longest = max(128, 2 ** math.ceil(math.log2(max(grid.width, grid.height))))
    sizes = [size for size in _TILES if size <= longest]
    if needs.is_network:
        sizes += [size for size in _evenly(grid, needs.stride_px) if size not in sizes]
    for tile in sizes if tile_px is None else [tile_px]:
        least, most = tile * math.ceil(math.sqrt(batch)), max(longest, tile)
        for unit in sorted({min(max(UNIT_PX, least), most), min(least, most)}):
            cuts = cut_grid(
                grid,
                tile_px=tile,
                largest_px=needs.largest_px,
                reach_px=needs.reach_px,
                margin_px=needs.margin_px,
                stride_px=needs.stride_px,
                unit_px=unit,
                is_clipped=needs.is_network,  # there is nothing beyond the raster, and a network is slow
            )
            cuts = _on_blocks(cuts, pixel, needs.stride_px)
            ample = math.inf if needs.is_network else max(_AMPLE_TILE_PX, _AMPLE_HALOS * cuts.halo_px)
            if tile_px is not None or tile <= ample:
                yield from _striped(cuts)


def _told(megabytes: int) -> str:
    return f"{megabytes}MB" if megabytes < 1e6 else f"{megabytes / 1e6:.3g}TB"


def _left_for_the_cpu(needs: Needs) -> Needs:
    """The memory and CPU needs of a detector whose network runs on a GPU."""
    memory = _GPU_BYTES[0] * len(needs.bands) + _GPU_BYTES[1]
    return replace(needs, bytes_per_pixel=min(needs.bytes_per_pixel, memory), cost=min(needs.cost, _GPU_COST))


def _evenly(grid: Grid, stride_px: int) -> list[int]:
    """Sides of tiles that divide a raster almost evenly: half a tile costs as much as a whole one."""
    found = set()
    for length in (grid.width, grid.height):
        for count in range(math.ceil(length / _TILES[0]), _EVEN_CUTS + 1):
            found.add(math.ceil(length / count / stride_px) * stride_px)
    return sorted((side for side in found if _TILES[-1] <= side <= _TILES[0]), reverse=True)


def _on_blocks(cuts: Cuts, pixel: PixelCost, stride_px: int) -> Cuts:
    """The cuts shifted so that the window a unit reads ends, below and right, with a block of the file.

    Then it touches one row and one column of blocks less, and stripes decode half as many blocks twice.
    """
    rows, columns = pixel.block_shape
    offset = cuts.halo_px % rows
    fits = pixel.scale == 1 and rows == columns and cuts.unit_px % rows == 0
    if fits and offset < cuts.tile_px and offset % stride_px == 0 and cuts.columns > _MANY:
        return replace(cuts, offset_px=offset)
    return cuts


def _striped(cuts: Cuts) -> Iterator[Cuts]:
    """The same cuts in stripes of one unit, two, three, four, six, eight… and all."""
    across = 1
    while across < cuts.columns:
        yield replace(cuts, stripe_px=across * cuts.unit_px)
        across = max(across + 1, int(across * 4 / 3))
    yield cuts


def _fill(cuts: Cuts, needs: Needs, pixel: PixelCost, workers: int, held: int, batch: int) -> Layout:
    """The block cache that these cuts need, and the peak."""
    unit_read = cuts.unit_px + 2 * cuts.halo_px
    threads = workers + needs.is_threaded
    # One unit being read, one waiting, one in each thread; a read holds its pixels and its mask.
    pixels = unit_read**2 * (pixel.chip_bytes + 1) * (2 + threads)
    # A detector holds its map, the values it was made of and its cleaned copy.
    at_once = workers * cuts.batch(batch)
    detecting = cuts.chip_px**2 * (needs.bytes_per_pixel + 3 * pixel.map_bytes) * at_once
    if needs.is_threaded:
        beside = _BESIDE_BYTES[0] * len(needs.bands) + _BESIDE_BYTES[1]
        detecting += cuts.chip_px**2 * (beside + 3 * pixel.map_bytes) * cuts.batch(batch)
    # Units in each thread, waiting, and being written to the journal, including packing.
    maps = cuts.unit_px**2 * pixel.map_bytes * (2 * threads + 3)
    rows, columns = pixel.block_shape
    # The blocks under a row of units plus one unit: the first must still be cached for the next row.
    touched = _touched_on_blocks if cuts.offset_px else _most_touched
    down = min(touched(unit_read * pixel.scale, rows), math.ceil(cuts.height * pixel.scale / rows))
    across = min(
        touched((cuts.stripe_px + 2 * cuts.halo_px) * pixel.scale, columns)
        + math.ceil(unit_read * pixel.scale / columns),
        math.ceil(cuts.width * pixel.scale / columns),
    )
    cache = int(down * rows * across * columns * pixel.cached_bytes * 1.1)
    peak = held + max(_SLACK_BYTES + cache + pixels + detecting + maps, _WRITING_BYTES)
    return Layout(cuts, workers, threads, cache, int(peak))


def _most_touched(length: float, block: int) -> int:
    """The largest number of blocks that a window of this length touches."""
    return math.ceil((math.ceil(length) - 1) / block) + 1


def _touched_on_blocks(length: float, block: int) -> int:
    """The number of blocks that a window of this length touches if it ends with a block."""
    return math.ceil(length / block)


def _cost(cuts: Cuts, needs: Needs, pixel: PixelCost, workers: int, cores: int) -> float:
    """Time per pixel, relative to decoding a pixel on one core.

    The mean of the wall time on idle cores and of the CPU time, which counts on shared cores.
    """
    columns, total = pixel.block_shape[1], math.ceil(cuts.width * pixel.scale / pixel.block_shape[1])
    decoded = 0
    across = max(1, cuts.stripe_px // cuts.unit_px)
    for first in range(0, cuts.columns, across):
        left = (first * cuts.unit_px - cuts.offset_px - cuts.halo_px) * pixel.scale
        right = ((first + across) * cuts.unit_px - cuts.offset_px + cuts.halo_px) * pixel.scale
        decoded += min(math.ceil(right / columns), total) - max(math.floor(left / columns), 0)
    reading = decoded / total + _COPYING * (1 + 2 * cuts.halo_px / cuts.unit_px) ** 2
    searched = (cuts.chip_px / cuts.tile_px) ** 2
    if needs.is_network:  # counted, because a tile that only begins on the raster costs as much
        searched = cuts.seen_px / (cuts.width * cuts.height)
    searching = needs.cost * searched
    overhead = _PER_UNIT / cuts.unit_px**2 + _PER_TILE / cuts.tile_px**2
    used = (reading + searching + overhead) / cores
    return (used + max(used, searching / (cores if needs.is_threaded else workers))) / 2
