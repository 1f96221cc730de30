"""What writing a million features costs in each format: seconds, file size, and how memory grows.

    python -m benchmarks.memory.writing /tmp/bench --features 1000000

Features come in batches of 5,000, as from the journal. Start-up and the making of the features are subtracted
from the seconds; growth is the peak memory beyond that of writing 10,000 features.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import shapely
from pyproj import CRS

from benchmarks.measuring import Cost, cost_of, machine, table
from ecodetect.formats import files as formats
from ecodetect.grid import Grid
from ecodetect.layer import Layer, Stream

BATCH = 5_000
FEW = 10_000
GRID = Grid(100_000, 100_000, (0.1, 0.0, 400_000.0, 0.0, -0.1, 5_200_000.0), CRS.from_epsg(32632))
SHAPES = ("points", "boxes", "polygons")


def main() -> None:
    """Write the features in each format, each in a process of its own, and print the costs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--features", type=int, default=1_000_000)
    parser.add_argument(
        "--shapes", default=",".join(SHAPES), help="which of points, boxes, polygons (30 corners)"
    )
    parser.add_argument("--suffixes", default=".geojson,.gpkg,.parquet,.fgb,.shp")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.one is not None:
        stream = Stream(
            _batches(given.shapes, given.features),
            "Point" if given.shapes == "points" else "Polygon",
            {
                "id": "str",
                "label": "str",
                "score": "float",
                "area_m2": "float",
                "diameter_m": "float",
                "source": "str",
            },
            grid=GRID,
        )
        if given.one:
            formats.write(given.folder / f"written{given.one}", stream, overwrite=True)
        else:
            sum(map(len, stream))
        return
    lines = []
    for shape in given.shapes.split(","):
        nothing = _cost(given.folder, shape, "", given.features)
        for suffix in given.suffixes.split(","):
            few, many = (_cost(given.folder, shape, suffix, count) for count in (FEW, given.features))
            net = many.less(nothing)
            size = sum(file.stat().st_size for file in given.folder.glob("written.*")) / 1e6
            growth = many.peak_mb - few.peak_mb
            lines.append(
                (
                    shape,
                    suffix,
                    f"{net.wall_s:.1f}",
                    f"{net.cpu_s:.1f}",
                    f"{size:.0f}",
                    f"{many.peak_mb:.0f}",
                    f"{growth:+.0f}",
                )
            )
            for file in given.folder.glob("written.*"):
                file.unlink()
    print(f"{given.features:,} features; {machine()}\n")
    print(table(("features", "format", "s", "s of CPU", "MB of file", "peak MB", "growth MB"), lines))


def _cost(folder: Path, shape: str, suffix: str, count: int) -> Cost:
    return cost_of(
        [
            sys.executable,
            "-m",
            "benchmarks.memory.writing",
            str(folder),
            "--features",
            str(count),
            "--shapes",
            shape,
            f"--one={suffix}",
        ]
    )


def _batches(shape: str, count: int) -> Iterator[Layer]:
    for start in range(0, count, BATCH):
        size = min(BATCH, count - start)
        random = np.random.default_rng(start)
        xy = random.uniform(100, 99_900, (size, 2))
        if shape == "points":
            geometry = shapely.points(xy)
        elif shape == "boxes":
            geometry = shapely.box(xy[:, 0], xy[:, 1], xy[:, 0] + 30, xy[:, 1] + 25)
        else:
            turn = np.linspace(0, 2 * np.pi, 31)
            circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
            geometry = shapely.polygons(xy[:, None] + circle * random.uniform(5, 40, (size, 31, 1)))
        score = random.random(size)
        columns = {
            "id": np.array([f"{start + row:016x}" for row in range(size)], object),
            "label": random.choice(np.array(["tree", "shrub"], object), size),
            "score": score,
            "area_m2": score * 30,
            "diameter_m": score * 6,
            "source": np.array(["ortho.tif"] * size, object),
        }
        yield Layer(np.asarray(geometry, dtype=object), columns, grid=GRID)


if __name__ == "__main__":
    main()
