"""The same bytes whatever the tiles and the workers.

    python -m benchmarks.robustness.tiles ortho.tif plate.png --models threshold blobs

Each raster is scanned with tiles of 256, 512 and 1024 px and one tile over all, by 1 and by 4 workers; the
files written are compared byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from pathlib import Path

from benchmarks.measuring import cost_of, scan_command, table

TILES = ("256", "512", "1024", "whole")
WORKERS = ("1", "4")


def main() -> None:
    """Scan with several tile sizes and workers, and print whether the bytes are the same."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rasters", nargs="+")
    parser.add_argument("--models", nargs="+", default=["threshold", "blobs"])
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="passed on")
    given = parser.parse_args()
    flags = [flag for pair in given.set for flag in ("--set", pair)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.geojson"
        for raster in given.rasters:
            for model in given.models:
                files = {}
                for tile in TILES:
                    for workers in WORKERS:
                        side = str(_whole(raster)) if tile == "whole" else tile
                        cuts = ("--tile", side, "--workers", workers, "--max-memory", "4GB", "--restart")
                        cost_of(scan_command(raster, out, "-m", model, *flags, *cuts))
                        content = out.read_bytes()
                        files[tile, workers] = (
                            hashlib.sha256(content).hexdigest(),
                            content.count(b'"Feature"'),
                        )
                digests = {digest for digest, _ in files.values()}
                same = f"{len(files)} files the same" if len(digests) == 1 else f"{len(digests)} DIFFERENT"
                counts = sorted({count for _, count in files.values()})
                rows.append([Path(raster).name, model, ", ".join(f"{n:,}" for n in counts), same])
    print(table(["raster", "detector", "features", f"tiles {', '.join(TILES)}; workers 1, 4"], rows))


def _whole(raster: str) -> int:
    """A tile side that covers the raster."""
    import rasterio

    with rasterio.open(raster) as dataset:
        return max(int(dataset.width), int(dataset.height), 16)


if __name__ == "__main__":
    main()
