"""The file of a map of scores, which a detector's detections come from: a tiled GeoTIFF of any size.

Units of a scan deliver their cells cut along the blocks of that file (`cut`), in any order. `write` joins the
pieces, block after block, so that only one block is in memory. Cells where nothing was searched are NaN.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling

from ecodetect.errors import UserError
from ecodetect.grid import Grid, Window
from ecodetect.raster.opening import FAULTS, quiet
from ecodetect.whole_file import settle, staged

BLOCK = 512  # cells along a side of the file's blocks
_SUFFIXES = (".tif", ".tiff")
_MARK = "ecodetect"
# Bits at the end of a number that are rounded away: 15 remain, 0.00003 of the value. A network's last bits
# are noise, which takes a third of a compressed file (measured on maps of `trees` and `shrubs`).
_NOISE_BITS = 9
_LEVEL = 1  # of compression: level 6 is half as fast and saves 2 to 3 % of the size
_CACHE_BYTES = 32_000_000  # GDAL's, while the file is written


@dataclass(frozen=True, slots=True)
class Piece:
    """Cells of one unit within one block of the file.

    block : row and column of the block.  window : in cells.  packed : float32 (K, h, w), compressed.
    """

    block: tuple[int, int]
    window: Window
    packed: bytes


def cut(window: Window, scores: NDArray[np.float32]) -> Iterator[Piece]:
    """The pieces of an array (K, h, w) that lies at `window` (cells); blocks with only NaN are left out."""
    for row in range(window.y // BLOCK, math.ceil(window.bottom / BLOCK)):
        for column in range(window.x // BLOCK, math.ceil(window.right / BLOCK)):
            part = _block(row, column).clipped(window)
            values = scores[(slice(None), *_within(part, window))]
            if not np.isnan(values).all():
                yield Piece((row, column), part, _packed(values))


def _block(row: int, column: int) -> Window:
    return Window(column * BLOCK, row * BLOCK, BLOCK, BLOCK)


def _within(window: Window, other: Window) -> tuple[slice, slice]:
    y, x = window.y - other.y, window.x - other.x
    return slice(y, y + window.height), slice(x, x + window.width)


def _packed(values: NDArray[np.float32]) -> bytes:
    """Rounded, and compressed by byte planes (first bytes, second bytes …), which compress better."""
    plain = np.ascontiguousarray(values, "<f4").view("<u4")
    half = np.uint32(1 << (_NOISE_BITS - 1))
    rounded = np.where(np.isnan(values), plain, (plain + half) & ~np.uint32((1 << _NOISE_BITS) - 1))
    return zlib.compress(rounded.astype("<u4").view(np.uint8).reshape(-1, 4).T.tobytes(), 1)


def _unpacked(piece: Piece, count: int) -> NDArray[np.float32]:
    window = piece.window
    planes = np.frombuffer(zlib.decompress(piece.packed), np.uint8).reshape(4, -1)
    values = np.ascontiguousarray(planes.T).view("<f4")
    return values.reshape(count, window.height, window.width).astype(np.float32)


def writable(path: str | os.PathLike[str]) -> None:
    """Raise UserError unless a map can be written to `path`: a GeoTIFF's suffix, an existing folder."""
    target = Path(path)
    if target.suffix.lower() not in _SUFFIXES:
        raise UserError(
            f"{target} can't hold a map of scores: its name must end in .tif, not '{target.suffix}'."
        )
    if not target.parent.is_dir():
        raise UserError(f"{target} can't be written: there is no folder {target.parent}; make it first.")
    if not os.access(target.parent, os.W_OK):
        raise UserError(f"{target} can't be written: {target.parent} is read-only; choose another folder.")
    if os.path.lexists(target) and not target.is_file():  # opening a pipe would wait
        raise UserError(f"{target} isn't a file that can be replaced; choose another name.")


def key_in(path: Path) -> str | None:
    """The key that an existing map carries; None where ecodetect didn't write it."""
    try:
        with rasterio.Env(), quiet(), rasterio.open(path, driver="GTiff", sharing=False) as file:
            metadata = json.loads(file.tags().get(_MARK, "{}"))
    except (*FAULTS, ValueError):
        return None
    key = metadata.get("key") if isinstance(metadata, dict) else None
    return key if isinstance(key, str) else None


def write(
    path: Path,
    pieces: Iterable[Piece],
    grid: Grid,
    classes: tuple[str, ...],
    metadata: Mapping[str, Any],
    progress: Callable[[str, float, float], None] | None = None,
    *,
    replace: bool = True,
) -> None:
    """Write a map to a temporary file and move it to its place: a named band per class, and overviews.

    pieces : sorted by block.  grid : of the cells.  metadata : JSON-able; its `key` identifies the question.
    replace : overwrite an existing file, which is an error otherwise.
    The bytes depend on these only. Raises UserError where the file can't be written; what was there stays.
    """
    total = grid.width * grid.height / 1e6
    try:
        # One thread: with several, the order of blocks would depend on timing.
        with staged(path) as folder, rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES, GDAL_NUM_THREADS="1"), quiet():
            stage = folder / path.name
            with rasterio.open(stage, "w", **_profile(grid, len(classes))) as file:
                # First, so that it comes first in the file: a scan of a folder recognises our maps by this
                # mark.
                file.update_tags(TIFFTAG_SOFTWARE=_MARK, **{_MARK: json.dumps(metadata, ensure_ascii=True)})
                for band, name in enumerate(classes, 1):
                    file.set_band_description(band, name)
                for (row, column), group in groupby(pieces, key=lambda piece: piece.block):
                    block = _block(row, column).clipped(grid.window)
                    values = np.full((len(classes), block.height, block.width), np.nan, np.float32)
                    for piece in group:
                        where = _within(piece.window, block)
                        values[(slice(None), *where)] = _unpacked(piece, len(classes))
                    file.write(values, window=rasterio.windows.Window(*_box(block)))
                    if progress is not None:
                        progress(path.name, (block.y * grid.width + block.right * block.height) / 1e6, total)
            factors = _overview_factors(grid)
            if factors:
                _add_overviews(stage, factors)
            check_whole(stage, factors)
            with stage.open("rb+") as whole:
                os.fsync(whole.fileno())
            settle(stage, path, replace=replace)
    except FileExistsError as error:
        raise UserError(f"{path} can't be written: {error.strerror}.") from error
    except (*FAULTS, OSError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()).rstrip(".")
        raise UserError(f"{path} can't be written: {reason}; is the disk full?") from error


def _profile(grid: Grid, count: int) -> dict[str, Any]:
    return {
        "driver": "GTiff",
        "width": grid.width,
        "height": grid.height,
        "count": count,
        "dtype": "float32",
        "nodata": math.nan,
        "crs": None if grid.crs is None else rasterio.CRS.from_wkt(grid.crs.to_wkt()),
        "transform": rasterio.Affine(*grid.transform),
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "interleave": "band",
        "compress": "deflate",
        "predictor": 3,
        "zlevel": _LEVEL,
        "sparse_ok": True,
        "bigtiff": "if_safer",
    }


def _box(window: Window) -> tuple[int, int, int, int]:
    return window.x, window.y, window.width, window.height


def _overview_factors(grid: Grid) -> list[int]:
    """2, 4, … until an overview is one block."""
    return [2**n for n in range(1, math.ceil(math.log2(max(grid.width, grid.height) / BLOCK)) + 1)]


def _add_overviews(path: Path, factors: list[int]) -> None:
    """Write overviews (means of 2 x 2 cells and so on), so that a viewer needn't read everything."""
    options = {
        "GDAL_TIFF_OVR_BLOCKSIZE": str(BLOCK),
        "PREDICTOR_OVERVIEW": "3",
        "ZLEVEL_OVERVIEW": str(_LEVEL),
        "SPARSE_OK_OVERVIEW": "YES",
    }
    with rasterio.Env(**options), rasterio.open(path, "r+") as file:
        file.build_overviews(factors, Resampling.average)


def check_whole(path: Path, factors: list[int]) -> None:
    """Raise OSError where the end is missing: GDAL doesn't report it when its last bytes don't fit."""
    size = path.stat().st_size
    with rasterio.open(path) as file:
        for band in file.indexes:
            if len(file.overviews(band)) != len(factors):
                raise OSError("its end is missing")
            for level, factor in enumerate([1, *factors]):
                columns = math.ceil(math.ceil(file.width / factor) / BLOCK)
                rows = math.ceil(math.ceil(file.height / factor) / BLOCK)
                for column, row in product(range(columns), range(rows)):
                    place = {"dm": "TIFF", "bidx": band, "ovr": level - 1 if level else None}
                    offset = file.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", **place)
                    if offset is None:
                        continue  # nothing but NaN
                    if int(offset) + int(file.get_tag_item(f"BLOCK_SIZE_{column}_{row}", **place)) > size:
                        raise OSError("its end is missing")
