"""One scene written at 5, 10, 12 and 25 cm, scanned by a detector that works at 10 cm: the same objects.

    python -m benchmarks.accuracy.scale /tmp/bench

The scene is painted once at 1 cm and averaged down, so that each raster shows the same ground. Compared are
objects of at least 4 px of the coarser raster: how many there are, and how far the centres lie apart.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from benchmarks.measuring import cost_of, scan_command, table

FINE_M = 0.01
SIDE_M = 120
GSDS_CM = (10, 5, 12, 25)  # the first is what the others are compared with
# Small enough for the smallest objects that are compared, 40 cm wide.
OPTIONS = ("gsd=0.1m", "geometry=point", "open=0px", "min_area=0.06m2")
FLAGS = [flag for option in OPTIONS for flag in ("--set", option)]
CRS = "EPSG:32630"
LEFT, TOP = 500_000.0, 4_100_000.0


def main() -> None:
    """Scan the scene at each pixel size and print the objects found and matched."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--objects", type=int, default=1_500)
    parser.add_argument(
        "--noise", type=float, default=3.0, help="of the camera, 8-bit levels, in every raster"
    )
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    fine, truth = paint(given.objects)
    found = {}
    for cm in GSDS_CM:
        raster = given.folder / f"scene-{cm}cm.tif"
        _write(raster, fine, cm, given.noise)
        out = raster.with_suffix(".csv")
        cost_of(scan_command(raster, out, "-m", "threshold", *FLAGS, "--restart"))
        found[cm] = _read(out, cm)
    rows = []
    reference = found[GSDS_CM[0]]
    for cm in GSDS_CM[1:]:
        coarser_m = max(cm, GSDS_CM[0]) / 100
        least_m = 4 * coarser_m
        for name, other in (("10 cm", reference), ("truth", truth)):
            rows.append(
                [f"{cm} cm", name, f"{least_m:.2f}", *_compared(found[cm], other, least_m, coarser_m)]
            )
    header = ["raster", "against", "of at least, m", "there", "found again", "in this raster", "difference"]
    print(table([*header, "mean shift, px of the coarser", "95 %", "largest", "along x or y"], rows))
    print(json.dumps({f"{cm} cm": len(found[cm]) for cm in GSDS_CM}))


def _compared(
    found: NDArray[np.float64], other: NDArray[np.float64], least_m: float, coarser_m: float
) -> list[str]:
    """Rows are x, y, diameter in metres."""
    # Pairs of which either is large enough are looked at from the other's side: sizes differ by a little.
    wanted = other[other[:, 2] >= least_m]
    distance, nearest = cKDTree(found[:, :2]).query(wanted[:, :2], distance_upper_bound=least_m / 2)
    paired = np.isfinite(distance)
    along = np.abs(found[nearest[paired], :2] - wanted[paired, :2]).max() / coarser_m
    count = int((found[:, 2] >= least_m).sum())
    shift = distance[paired] / coarser_m
    shifts = [f"{value:.2f}" for value in (shift.mean(), np.quantile(shift, 0.95), shift.max(), along)]
    return [f"{len(wanted)}", f"{paired.sum()}", f"{count}", f"{count / len(wanted) - 1:+.1%}", *shifts]


def paint(count: int, seed: int = 1) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Dark ellipses on bright uneven ground at 1 cm, and their centres and diameters in metres (N, 3).

    They don't come nearer to each other, or to the edge, than 60 cm.
    """
    random = np.random.default_rng(seed)
    px = int(SIDE_M / FINE_M)
    y, x = np.mgrid[0:px:10, 0:px:10] * FINE_M
    ground = 175 + 10 * np.sin(x / 9) * np.cos(y / 13) + 5 * np.sin(x / 2.1 + y / 3.7)
    scene = np.kron(ground, np.ones((10, 10))).astype(np.float32)
    placed: list[tuple[float, float, float]] = []
    for _ in range(count * 3):
        long_m = 0.4 * 10 ** random.uniform(0, 0.9)
        short_m = long_m * random.uniform(0.7, 1)
        reach = long_m / 2
        cx, cy = random.uniform(reach + 0.6, SIDE_M - reach - 0.6, 2)
        if any(np.hypot(cx - ox, cy - oy) < reach + other / 2 + 0.6 for ox, oy, other in placed):
            continue
        turn = random.uniform(0, np.pi)
        box = [
            int((value) / FINE_M) for value in (cy - reach, cy + reach + 0.02, cx - reach, cx + reach + 0.02)
        ]
        rows, columns = slice(box[0], box[1]), slice(box[2], box[3])
        py, qx = np.mgrid[rows, columns] * FINE_M + FINE_M / 2
        along = (qx - cx) * np.cos(turn) + (py - cy) * np.sin(turn)
        across = -(qx - cx) * np.sin(turn) + (py - cy) * np.cos(turn)
        inside = (along / (long_m / 2)) ** 2 + (across / (short_m / 2)) ** 2 <= 1
        scene[rows, columns][inside] = 90 + 10 * random.uniform(-1, 1)
        placed.append((float(cx), float(cy), float(np.sqrt(long_m * short_m))))
        if len(placed) == count:
            break
    return np.rint(scene).astype(np.uint8), np.array(placed)


def _write(path: Path, fine: NDArray[np.uint8], cm: int, noise: float) -> None:
    side = fine.shape[0] // cm
    mean = fine.reshape(side, cm, side, cm).mean(axis=(1, 3))
    mean = mean + np.random.default_rng(cm).normal(0, noise, mean.shape)
    pixels = np.clip(np.rint(mean), 0, 255).astype(np.uint8)
    step = cm / 100
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=1, dtype="uint8", crs=CRS,
        transform=rasterio.Affine(step, 0, LEFT, 0, -step, TOP), compress="DEFLATE", tiled=True,
    ) as dataset:  # fmt: skip
        dataset.write(pixels, 1)


def _read(csv: Path, cm: int) -> NDArray[np.float64]:
    """x, y, diameter of the points in metres of the scene."""
    import pandas

    table = pandas.read_csv(csv)
    step = cm / 100
    return np.stack([table["x"] * step, table["y"] * step, table["diameter_m"]], axis=1).astype(np.float64)


if __name__ == "__main__":
    main()
