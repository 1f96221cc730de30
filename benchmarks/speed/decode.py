"""Decode every block of a raster once, in the file's order, for nothing: what a scan costs at least."""

from __future__ import annotations

import argparse

import rasterio
from rasterio.windows import Window


def main() -> None:
    """Decode all blocks of the raster that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("raster")
    parser.add_argument(
        "--threads", type=int, default=1, help="of GDAL; more than one: a row of blocks at a time"
    )
    given = parser.parse_args()
    with (
        rasterio.Env(GDAL_NUM_THREADS=str(given.threads), GDAL_CACHEMAX=256_000_000),
        rasterio.open(given.raster) as dataset,
    ):
        rows, columns = dataset.block_shapes[0]
        if given.threads > 1:
            columns = dataset.width
        for y in range(0, dataset.height, rows):
            for x in range(0, dataset.width, columns):
                dataset.read(
                    window=Window(x, y, min(columns, dataset.width - x), min(rows, dataset.height - y))
                )


if __name__ == "__main__":
    main()
