"""What proposals cost and miss: share of true individuals that have one, proposals per hectare, seconds.

    python -m benchmarks.accuracy.candidate_recall zone1.jpg shrubs_west.csv --gsd 0.12
        --ignore doubtful_west.csv
    python -m benchmarks.accuracy.candidate_recall sample_data/dryland.tif sample_data/dryland_shrubs.geojson
        --smallest 2 --largest 10

A classifier can't find what isn't proposed. For `threshold` (a fixed level, Otsu's, local), `blobs` and
`selective_search`, all with the same gates on size, the share of the true individuals for which there is a
proposal (a) whose centre lies in the individual's box, (b) whose box has an IoU of 0.5 or more with it,
(c) whose patch, the square of `ecodetect candidates` (1.2 times the longer side), holds the box's centre. The
fixed levels are the study's, 100, and of nine the one that is best here by (b), then by fewer proposals: as
good as a level can be made to look. Proposals and hectares are those of the whole raster, wherever the truth
is known.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import shapely
from numpy.typing import NDArray

import ecodetect
from benchmarks.measuring import machine, table
from ecodetect import matching
from ecodetect.annotations.laying import read_annotations
from ecodetect.raster.reading import open_raster

IOU, PATCH = 0.5, 1.2
LEVELS = range(40, 161, 15)
STUDY = 100  # of Guirado et al. 2017
BLOBS_PX = 80  # what the largest spot is made to measure: `blobs` takes at most 100


@dataclass(frozen=True, slots=True)
class Recall:
    """Shares of the truths with a proposal by (a), (b), (c); proposals; seconds by the clock and of CPU."""

    centre: float
    iou: float
    patch: float
    proposals: int
    wall_s: float
    cpu_s: float


@click.command()
@click.argument("image", type=click.Path(exists=True, path_type=Path))
@click.argument("truth", type=click.Path(exists=True, path_type=Path))
@click.option("--gsd", type=float, help="Metres per pixel, where the raster doesn't say.")
@click.option(
    "--ignore", type=click.Path(exists=True, path_type=Path), help="Objects whose proposals don't count."
)
@click.option("--smallest", default=3.0, show_default=True, help="Diameter of the smallest object, m.")
@click.option("--largest", default=25.0, show_default=True, help="Width of the largest object, m.")
def main(
    image: Path, truth: Path, gsd: float | None, ignore: Path | None, smallest: float, largest: float
) -> None:
    """Measure."""
    with open_raster(str(image), gsd_m=gsd) as raster:
        grid = raster.grid
        boxes = shapely.bounds(read_annotations(truth, grid, image=image.name).geometry)
        left_out = None if ignore is None else read_annotations(ignore, grid, image=image.name).geometry
    if grid.gsd is None:
        raise click.UsageError("the raster has no CRS: state --gsd.")
    hectares = grid.width * grid.height * math.prod(grid.gsd) / 1e4

    def measured(model: str, options: Mapping[str, str]) -> Recall:
        started, used = time.monotonic(), time.process_time()
        found = ecodetect.scan(image, model=model, gsd_m=gsd, options=dict(options))
        wall, cpu = time.monotonic() - started, time.process_time() - used
        bounds = found.bounds()
        if left_out is not None:
            is_in = shapely.STRtree(left_out).query(shapely.points(found.centres()), predicate="intersects")[
                0
            ]
            bounds = np.delete(bounds, np.unique(is_in), axis=0)
        return Recall(*_shares(bounds, boxes), len(bounds), wall, cpu)

    size = {"min_area": f"{math.pi / 4 * smallest**2:.3f}m2", "largest": f"{largest:g}m"}
    levels = {level: measured("threshold", {**size, "level": str(level)}) for level in LEVELS}
    best = max(levels, key=lambda level: (levels[level].iou, -levels[level].proposals))
    spots = {"min_diameter": f"{smallest:g}m", "max_diameter": f"{largest:g}m"}
    if largest / max(grid.gsd) > BLOBS_PX:
        spots["gsd"] = f"{largest / BLOBS_PX:.3f}m"
    rows = {
        f"`threshold`, level {STUDY} (the study's)": levels.get(STUDY)
        or measured("threshold", {**size, "level": str(STUDY)}),
        f"`threshold`, level {best} (best here)": levels[best],
        "`threshold`, Otsu": measured("threshold", size),
        "`threshold`, local": measured("threshold", {**size, "level": "local"}),
        "`blobs`": measured("blobs", spots),
        "`selective_search`": measured(
            "selective_search", {"smallest": f"{smallest:g}m", "largest": f"{largest:g}m"}
        ),
    }
    click.echo(
        f"{image.name}: {len(boxes)} individuals, objects of {smallest:g} to {largest:g} m,"
        f" {hectares:.2f} ha; {machine()}\n"
    )
    header = ["proposals", "centre in box", "IoU ≥ 0.5", "patch on centre", "per hectare", "s", "s of CPU"]
    click.echo(table(header, [[name, *_row(recall, hectares)] for name, recall in rows.items()]))


def _shares(proposals: NDArray[Any], truths: NDArray[Any]) -> tuple[float, float, float]:
    """Shares of the truths that have a proposal by each of the criteria; boxes (N, 4) and (M, 4)."""
    n = max(1, len(truths))
    centre, half = (proposals[:, :2] + proposals[:, 2:]) / 2, np.ptp(proposals.reshape(-1, 2, 2), axis=1)
    reach = half.max(axis=1, initial=0)[:, None] * PATCH / 2
    patches = shapely.box(*np.hstack([centre - reach, centre + reach]).T)
    middle = (truths[:, :2] + truths[:, 2:]) / 2
    tree = shapely.STRtree(shapely.box(*truths.T))
    inside = tree.query(shapely.points(centre), predicate="intersects")[1]
    held = shapely.STRtree(shapely.points(middle)).query(patches, predicate="intersects")[1]
    alike = matching.by_iou(shapely.box(*proposals.T), shapely.box(*truths.T), IOU).truth
    return tuple(len(np.unique(found)) / n for found in (inside, alike, held))  # type: ignore[return-value]


def _row(recall: Recall, hectares: float) -> list[str]:
    shares = [f"{share:.3f}" for share in (recall.centre, recall.iou, recall.patch)]
    return [*shares, f"{recall.proposals / hectares:.0f}", f"{recall.wall_s:.1f}", f"{recall.cpu_s:.1f}"]


if __name__ == "__main__":
    main()
