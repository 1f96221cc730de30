"""Make a large GeoTIFF, the same bytes each time and about as fast as the disk takes them.

A pattern (the texture of `sample_data/dryland.tif`, enlarged, with sensor noise) is compressed once by GDAL;
its blocks are then repeated over a BigTIFF of any size. A reader has to decode every one of them.

    python -m benchmarks.make_raster 20000 /tmp/20000.tif
    python -m benchmarks.make_raster 200000 /tmp/sparse.tif --sparse 0.01
"""

from __future__ import annotations

import argparse
import struct
import tempfile
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

TEXTURE = Path(__file__).parents[1] / "sample_data" / "dryland.tif"
PATTERN_PX = 4096
STRIP_ROWS = 1024  # rows of the pattern where blocks are rows as wide as the raster
TILE_PX = 512
NOISE = 3.0  # standard deviation, on the 8-bit scale: what a camera adds
GSD_M = 0.1
CLUSTER = 8  # the data of a sparse raster lies in squares of this many blocks a side

# Tags of a TIFF, and their types, that depend on the size of the raster.
WIDTH, HEIGHT = 256, 257
STRIP_OFFSETS, STRIP_COUNTS, TILE_OFFSETS, TILE_COUNTS = 273, 279, 324, 325
LONG8 = 16
TYPE_BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}

Entries = dict[int, tuple[int, int, bytes]]  # tag -> type, count, value


def main() -> None:
    """Write the raster that the arguments describe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("size", type=int, help="side in pixels")
    parser.add_argument("out", type=Path)
    parser.add_argument("--height", type=int, help="rows, where they differ from the columns")
    parser.add_argument("--compress", default="deflate", choices=("deflate", "zstd", "lzw", "jpeg", "none"))
    parser.add_argument("--strips", action="store_true", help="strips of one row instead of tiles of 512 px")
    parser.add_argument(
        "--sparse", type=float, metavar="SHARE", help="only this share of the blocks is there"
    )
    parser.add_argument("--bands", type=int, default=3, choices=(1, 3, 4))
    parser.add_argument("--dtype", default="uint8", choices=("uint8", "uint16", "float32"))
    given = parser.parse_args()
    make(
        given.out,
        given.size,
        given.height,
        compress=given.compress,
        strips=given.strips,
        sparse=given.sparse,
        bands=given.bands,
        dtype=given.dtype,
    )
    print(f"{given.out}: {given.out.stat().st_size / 1e6:,.1f} MB")


def make(
    out: Path,
    width: int,
    height: int | None = None,
    *,
    compress: str = "deflate",
    strips: bool = False,
    sparse: float | None = None,
    bands: int = 3,
    dtype: str = "uint8",
) -> Path:
    """Write the raster unless it is there; returns its path.  The command line tells of the arguments."""
    height = height or width
    if out.exists():
        return out
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        pattern = Path(folder) / "pattern.tif"
        across = width if strips else PATTERN_PX
        down = STRIP_ROWS if strips else PATTERN_PX
        _write_pattern(pattern, across, down, compress=compress, strips=strips, bands=bands, dtype=dtype)
        unfinished = Path(folder) / "raster.tif"
        with pattern.open("rb") as source, unfinished.open("wb") as target:
            _repeat(source, target, width, height, sparse)
        unfinished.replace(out)
    return out


def texture(
    width: int, height: int, *, bands: int = 3, dtype: str = "uint8", seed: int = 1
) -> NDArray[np.generic]:
    """Pixels to look at, (bands, height, width): scrubland at 0.1 m, mirrored where it ends."""
    with rasterio.open(TEXTURE) as dataset:
        # The upper right corner is nodata.
        scene = dataset.read(window=Window(0, 300, 1200, 700))
    scene = np.moveaxis(scene, 0, -1).astype(np.float32)
    scene = scene.mean(axis=-1, keepdims=True) if bands == 1 else scene[..., :bands]
    large = cv2.resize(scene, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC).reshape(1400, 2400, bands)
    rows, columns = _mirrored(height, 1400), _mirrored(width, 2400)
    out = np.empty((bands, height, width), dtype)
    random = np.random.default_rng(seed)
    top, unit = {"uint8": (255, 1.0), "uint16": (65535, 200.0), "float32": (1e9, 1 / 255)}[dtype]
    for first in range(0, height, 256):  # in parts, since floats of a wide raster take memory
        part = large[rows[first : first + 256]][:, columns]
        noisy = part + random.normal(0, NOISE, part.shape).astype(np.float32)
        values = np.clip(noisy, 1, 255) * unit
        if dtype != "float32":
            values = np.rint(values)
        out[:, first : first + 256] = np.moveaxis(np.clip(values, 0, top), -1, 0).astype(dtype)
    return out


def _mirrored(count: int, size: int) -> NDArray[np.int64]:
    """0, 1, … size - 1, size - 1, … 1, 0, 0, 1, …"""
    place = np.arange(count) % (2 * size)
    return np.where(place < size, place, 2 * size - 1 - place)


def _write_pattern(
    path: Path, width: int, height: int, *, compress: str, strips: bool, bands: int, dtype: str
) -> None:
    blocks = (
        {"tiled": False, "blockysize": 1}
        if strips
        else {"tiled": True, "blockxsize": TILE_PX, "blockysize": TILE_PX}
    )
    options: dict[str, object] = {"BIGTIFF": "YES", "NUM_THREADS": "ALL_CPUS", "INTERLEAVE": "PIXEL"}
    if compress != "none":
        options["COMPRESS"] = compress.upper()
    if compress in ("deflate", "zstd", "lzw") and dtype != "float32":
        options["PREDICTOR"] = 2
    if compress == "jpeg":
        options |= {"JPEG_QUALITY": 85} | ({"PHOTOMETRIC": "YCBCR"} if bands == 3 else {})
    elif bands > 1:
        options["PHOTOMETRIC"] = "RGB"
    transform = rasterio.Affine(GSD_M, 0, 500_000, 0, -GSD_M, 4_100_000)
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=bands, dtype=dtype, crs="EPSG:32630",
        transform=transform, **blocks, **options,
    ) as dataset:  # fmt: skip
        dataset.write(texture(width, height, bands=bands, dtype=dtype))


# -- the container -------------------------------------------------------------------------------------------


def _repeat(source: BinaryIO, target: BinaryIO, width: int, height: int, sparse: float | None) -> None:
    """Write `width` x `height` pixels made of the blocks of the BigTIFF `source`."""
    entries = _read_entries(source)
    tiled = TILE_OFFSETS in entries
    offsets_tag, counts_tag = (TILE_OFFSETS, TILE_COUNTS) if tiled else (STRIP_OFFSETS, STRIP_COUNTS)
    offsets, counts = _numbers(entries[offsets_tag]), _numbers(entries[counts_tag])
    block = TILE_PX if tiled else 1
    per_row = PATTERN_PX // TILE_PX if tiled else 1
    patterns = []
    for offset, count in zip(offsets, counts, strict=True):
        source.seek(offset)
        patterns.append(source.read(count))
    across, down = (-(-width // TILE_PX) if tiled else 1), -(-height // block)
    present = _present(across, down, sparse)

    target.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))  # the place of the index is filled in at the end
    out_offsets, out_counts = np.zeros((down, across), "<u8"), np.zeros((down, across), "<u8")
    place = target.tell()
    for row in range(down):
        first = row % (len(patterns) // per_row) * per_row
        for column in np.flatnonzero(present[row]) if present is not None else range(across):
            data = patterns[first + column % per_row]
            target.write(data)
            out_offsets[row, column], out_counts[row, column] = place, len(data)
            place += len(data)
    entries[WIDTH] = (LONG8, 1, struct.pack("<Q", width))
    entries[HEIGHT] = (LONG8, 1, struct.pack("<Q", height))
    entries[offsets_tag] = (LONG8, out_offsets.size, out_offsets.tobytes())
    entries[counts_tag] = (LONG8, out_counts.size, out_counts.tobytes())
    _write_entries(target, entries)


def _present(across: int, down: int, sparse: float | None) -> NDArray[np.bool_] | None:
    """Which blocks are there, (down, across): squares at random places until the share is reached."""
    if sparse is None:
        return None
    present = np.zeros((down, across), bool)
    random = np.random.default_rng(2)
    while present.sum() < sparse * present.size:
        y, x = random.integers(0, max(1, down - CLUSTER)), random.integers(0, max(1, across - CLUSTER))
        present[y : y + CLUSTER, x : x + CLUSTER] = True
    return present


def _read_entries(source: BinaryIO) -> Entries:
    """The first index of a little-endian BigTIFF."""
    order, version, _, _, place = struct.unpack("<2sHHHQ", source.read(16))
    assert (order, version) == (b"II", 43)
    source.seek(place)
    (number,) = struct.unpack("<Q", source.read(8))
    entries: Entries = {}
    for tag, kind, count, inline in [struct.unpack("<HHQ8s", source.read(20)) for _ in range(number)]:
        size = TYPE_BYTES[kind] * count
        value = inline[:size]
        if size > 8:
            source.seek(struct.unpack("<Q", inline)[0])
            value = source.read(size)
        entries[tag] = (kind, count, value)
    return entries


def _write_entries(target: BinaryIO, entries: Entries) -> None:
    """Append the index, and point to it from the header."""
    inline = {}
    for tag, (_, _, value) in entries.items():
        inline[tag] = value.ljust(8, b"\0")
        if len(value) > 8:
            inline[tag] = struct.pack("<Q", target.tell())
            target.write(value + b"\0" * (-len(value) % 8))
    place = target.tell()
    target.write(struct.pack("<Q", len(entries)))
    for tag in sorted(entries):
        kind, count, _ = entries[tag]
        target.write(struct.pack("<HHQ8s", tag, kind, count, inline[tag]))
    target.write(struct.pack("<Q", 0))
    target.seek(8)
    target.write(struct.pack("<Q", place))


def _numbers(entry: tuple[int, int, bytes]) -> list[int]:
    kind, count, value = entry
    return list(struct.unpack(f"<{count}{'H' if kind == 3 else 'I' if kind == 4 else 'Q'}", value))


if __name__ == "__main__":
    main()
