"""What ten times as much costs: seconds of CPU and peak memory of whole processes, and the ratio of both.

    python -m benchmarks.speed.growth /tmp/bench
    python -m benchmarks.speed.growth /tmp/bench --parts points classes --most 100000

| part | what grows |
| points, boxes, polygons | features: `evaluate` (as many on each side), `check`, `convert` |
| dense | how many candidates each individual has, and 10⁵ in one place |
| classes | 5,000 of them |
| objects | objects that `scan` finds |
| counts | detections that `count` counts in a grid and by polygons |
| pictures | small pictures of a folder, with 64 descriptors |
| wide | one raster: an object as large as it, `--picture`, a label image |

Asked: ten times as much takes at most 12 times as long; a peak below 3 GB; or one sentence. Inputs are made
from fixed seeds and used again. CPU is counted, as other work disturbs the clock far more.
"""

from __future__ import annotations

import argparse
import os
import pickle
import resource
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from tempfile import TemporaryFile
from typing import ParamSpec, TypeVar

import cv2
import numpy as np
import pyogrio
import rasterio
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.windows import Window

from benchmarks.measuring import Cost, cost_of, table

PARTS = ("points", "boxes", "polygons", "dense", "classes", "objects", "counts", "pictures", "wide")
SUFFIXES = ("csv", "geojson", "gpkg")
SPACING_PX = 20  # the mean; positions are random
GSD_M = 0.1
LEFT, TOP, CRS = 400_000.0, 5_200_000.0, "EPSG:32632"
PROGRAM = str(Path(sys.executable).with_name("ecodetect"))
FIND = ("-m", "threshold", "--set", "objects=bright", "--overwrite", "--restart", "-q")
DRIVERS = {"geojson": "GeoJSON", "gpkg": "GPKG"}

Floats = NDArray[np.float64]
_Given = ParamSpec("_Given")
_Made = TypeVar("_Made")


def main() -> None:
    """Run each case at one and ten times the size and print the ratios of time and memory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--most", type=int, default=1_000_000, help="features; a tenth of them before")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--suffixes", nargs="+", default=SUFFIXES, choices=SUFFIXES)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    rows: list[list[str]] = []
    header = ["case", "n", "s of CPU", "times as long", "peak MB", "or in a sentence"]
    for part in given.parts:
        found = _PARTS[part](given) if part in _PARTS else _features(given, part)
        rows += found
        print(table(header, found), flush=True)
    print("\n" + table(header, rows))


# -- cases -------------------------------------------------------------------------------------------------


def _features(given: argparse.Namespace, kind: str) -> list[list[str]]:
    rows = []
    radius = ("--radius", "1m") if kind == "points" else ()
    for suffix in given.suffixes:
        commands: dict[str, list[tuple[int, list[str]]]] = {}
        for n in (given.most // 10, given.most):
            image, there, found = scene(given.folder, n, kind, suffix)
            match = ("--within", "0.5m") if kind == "points" else ("--iou", "0.5")
            out = given.folder / "growth.fgb"
            sides = ["evaluate", str(found), str(there), "--image", str(image)]
            each = {
                "evaluate": [*sides, *match],
                "check": ["check", str(image), str(there), *radius, "--weights", "none"],
                "convert to .fgb": ["convert", str(there), str(out), "--image", str(image), "--overwrite"],
            }
            for name, command in each.items():
                commands.setdefault(f"`{name}`, {kind}, .{suffix}", []).append((n, command))
        for name, runs in commands.items():
            rows += _grown(name, runs)
    return rows


def _dense(given: argparse.Namespace) -> list[list[str]]:
    rows = []
    for candidates in (1, 5, 10):
        within = f"{SPACING_PX * GSD_M * (candidates / np.pi) ** 0.5:.3f}m"
        runs = []
        for n in (given.most // 10, given.most):
            image, there, found = scene(given.folder, n, "points", "csv", "strangers")
            sides = ["evaluate", str(found), str(there), "--image", str(image), "--within", within]
            runs.append((n, sides))
        rows += _grown(f"`evaluate`, points, {candidates} candidates each", runs)
    for place, what in (("one", "all in the same place"), ("crowd", "all within a metre")):
        image, there, found = scene(given.folder, given.most // 10, "points", "csv", place)
        sides = ["evaluate", str(found), str(there), "--image", str(image), "--within", "3m"]
        rows += _grown(f"`evaluate`, points, {what}", [(given.most // 10, sides)])
        check = ["check", str(image), str(there), "--radius", "1m", "--weights", "none"]
        rows += _grown(f"`check`, points, {what}", [(given.most // 10, check)])
    return rows


def _classes(given: argparse.Namespace) -> list[list[str]]:
    n = given.most // 10
    rows = []
    for name in ("evaluate", "check"):
        runs = []
        for classes in (500, 5_000):
            image, there, found = scene(given.folder, n, "points", "csv", classes=classes)
            column = ("--class-column", "label")
            sides = [str(found), str(there), "--image", str(image), "--within", "0.5m", *column]
            look = [str(image), str(there), "--radius", "1m", "--weights", "none", *column]
            runs.append((classes, [name, *(sides if name == "evaluate" else look)]))
        rows += _grown(f"`{name}`, {n:,} points, classes", runs)
    out = given.folder / "growth.gpkg"
    image, there, _ = scene(given.folder, n, "points", "csv", classes=5_000)
    command = ["convert", str(there), str(out), "--image", str(image), "--overwrite"]
    return rows + _grown(f"`convert` to .gpkg with its style, {n:,} points, classes", [(5_000, command)])


def _objects(given: argparse.Namespace) -> list[list[str]]:
    runs = []
    for n in (given.most // 5, given.most * 2):
        image, out = squares(given.folder, n), given.folder / "growth.gpkg"
        small = ("--set", "open=0px", "--set", "min_area=4px2")
        runs.append((n, ["scan", str(image), "-o", str(out), *FIND, *small]))
    rows = _grown("`scan -m threshold`, objects", runs)
    for suffix in given.suffixes:
        runs = []
        for n in (given.most // 5, given.most * 2):
            drawn = (
                "--picture",
                str(given.folder / "growth.png"),
                "--sheet",
                str(given.folder / "sheet.png"),
            )
            out = given.folder / f"growth-{n}.{suffix}"
            runs.append((n, ["scan", str(squares(given.folder, n)), "-o", str(out), *FIND, *small, *drawn]))
        rows += _grown(f"the same with `--picture` and `--sheet`, {suffix}", runs)
    return rows


def _counts(given: argparse.Namespace) -> list[list[str]]:
    rows = []
    for suffix in given.suffixes:
        runs: dict[str, list[tuple[int, list[str]]]] = {}
        for n in (given.most // 10, given.most):
            image, found = squares(given.folder, n), given.folder / f"counted-{n}.{suffix}"
            small = ("--set", "open=0px", "--set", "min_area=4px2")
            cost_of([PROGRAM, "scan", str(image), "-o", str(found), *FIND, *small])
            out = ("-o", str(given.folder / "growth.gpkg"), "--overwrite", "--image", str(image))
            tables = (
                "--table",
                str(given.folder / "growth.csv"),
                "--density",
                str(given.folder / "growth.tif"),
            )
            by = ("--by", str(districts(given.folder, n)))
            runs.setdefault("--grid 5m", []).append((n, ["count", str(found), "--grid", "5m", *tables, *out]))
            runs.setdefault("--by 400 polygons", []).append(
                (n, ["count", str(found), *by, *tables[:2], *out])
            )
        for name, commands in runs.items():
            rows += _grown(f"`count {name}`, .{suffix}", commands)
    return rows


def _pictures(given: argparse.Namespace) -> list[list[str]]:
    sizes = (300, 1_000, 3_000)
    commands: dict[str, list[tuple[int, list[str]]]] = {}
    for n in sizes:
        folder = str(pictures(given.folder, n))
        out = given.folder / f"growth-{n}.csv"
        sides = ["evaluate", str(out), str(out), "--image", folder, "--within", "3px"]
        each = {
            "scan -m threshold": ["scan", folder, "-o", str(out), *FIND],
            "check": ["check", folder, str(out), "--radius", "6px", "--weights", "none"],
            "evaluate": sides,
        }
        for name, command in each.items():
            commands.setdefault(f"`{name}`, pictures, 64 descriptors", []).append((n, command))
    return [row for name, runs in commands.items() for row in _grown(name, runs, descriptors=64)]


def _wide(given: argparse.Namespace) -> list[list[str]]:
    folder = given.folder
    whole, ones = rectangle(folder, 10_000, "uint8"), rectangle(folder, 10_000, "uint16")
    big, labels = rectangle(folder, 40_000, "uint8"), rectangle(folder, 40_000, "uint16")
    out = str(folder / "growth.gpkg")
    picture = ("--picture", str(folder / "growth.png"))
    convert = ["--overwrite"]
    rows = _grown("`scan`, one object that is the raster", [(10_000, ["scan", str(whole), "-o", out, *FIND])])
    rows += _grown(
        "`convert`, a label image of one object", [(10_000, ["convert", str(ones), out, *convert])]
    )
    rows += _grown("the same", [(40_000, ["convert", str(labels), out, *convert])])
    return rows + _grown("`scan --picture`", [(40_000, ["scan", str(big), "-o", out, *FIND, *picture])])


_PARTS: dict[str, Callable[[argparse.Namespace], list[list[str]]]] = {
    "dense": _dense,
    "classes": _classes,
    "objects": _objects,
    "counts": _counts,
    "pictures": _pictures,
    "wide": _wide,
}


def _grown(
    name: str, runs: Sequence[tuple[int, list[str]]], *, descriptors: int | None = None
) -> list[list[str]]:
    """A line for each run: what it cost, and the cost as a multiple of the one before."""
    rows, before = [], None
    for n, command in runs:
        cost, sentence = _cost(command, descriptors)
        times = "" if before is None else f"{cost.cpu_s / before.cpu_s:.1f}"
        rows.append([name, f"{n:,}", f"{cost.cpu_s:.1f}", times, f"{cost.peak_mb:,.0f}", sentence])
        print(rows[-1], file=sys.stderr, flush=True)
        before = cost
    return rows


def _cost(command: Sequence[str], descriptors: int | None) -> tuple[Cost, str]:
    """What a command cost, and the sentence if it refuses."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, before[1]))
    try:
        cost = cost_of([PROGRAM, *command], may_refuse=True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    said = [line for line in cost.output.splitlines() if line.startswith("error: ")]
    return cost, said[-1].removeprefix("error: ") if said else ""


# -- inputs ------------------------------------------------------------------------------------------------


def _apart(make: Callable[_Given, _Made]) -> Callable[_Given, _Made]:
    """Make an input in a process of its own: a child's peak begins with that of its parent."""

    @wraps(make)
    def made(*given: _Given.args, **named: _Given.kwargs) -> _Made:
        with TemporaryFile() as answer:
            child = os.fork()
            if not child:
                try:
                    pickle.dump(make(*given, **named), answer)
                    answer.flush()
                    os._exit(0)
                finally:
                    os._exit(1)
            if os.waitpid(child, 0)[1]:
                raise RuntimeError(f"{make.__name__} failed")
            answer.seek(0)
            found: _Made = pickle.load(answer)
        return found

    return made


@_apart
def scene(
    folder: Path, n: int, kind: str, suffix: str, place: str = "spread", *, classes: int = 1
) -> tuple[Path, Path, Path]:
    """A raster, a file of n annotations and one of as many detections: most 20 cm off, a tenth elsewhere.

    place : "spread"; "strangers", where detections have nothing to do with annotations; "one", all in the
        same place; "crowd", all within a metre.
    """
    side = int(np.ceil(n**0.5 * SPACING_PX / 256) * 256)
    image = folder / f"ground-{side}.tif"
    if not image.exists():
        with _written(image, side, "uint8", blocks=256) as file:
            file.write(
                np.random.default_rng(0).integers(1, 255, (1, 256, 256), dtype=np.uint8),
                window=Window(0, 0, 256, 256),
            )
    random = np.random.default_rng(1)
    there, other = random.uniform(20, side - 20, (2, n, 2))
    found = np.where(np.arange(n)[:, None] < n // 10, other, there + random.normal(0, 2, (n, 2)))
    if place == "strangers":
        found = other
    elif place == "one":
        there = found = np.full((n, 2), side / 2)
    elif place == "crowd":
        there, found = side / 2 + random.uniform(-3, 3, (2, n, 2))
    label = [f"class {number:04}" for number in random.integers(0, classes, n)]
    files = []
    for name, xy, score in (("true", there, None), ("found", found, random.uniform(0, 1, n).round(4))):
        files.append(folder / f"{name}-{n}-{kind}-{place}-{classes}.{suffix}")
        if not files[-1].exists():
            _write_features(files[-1], _shapes(xy, kind, random), label, score)
    return image, files[0], files[1]


@_apart
def squares(folder: Path, n: int, step: int = 10) -> Path:
    """A raster with about n bright squares of 5 px on dark, noisy ground."""
    side = int(np.ceil(n**0.5)) * step
    path = folder / f"squares-{side}.tif"
    if path.exists():
        return path
    random = np.random.default_rng(0)
    with _written(path, side, "uint8") as file:
        for top in range(0, side, 50 * step):
            height = min(50 * step, side - top)
            pixels = random.integers(30, 36, (height, side), dtype=np.uint8)
            inside = np.isin(np.arange(side) % step, range(2, 7))
            pixels[np.ix_(inside[:height], inside)] = 200
            file.write(pixels, 1, window=Window(0, top, side, height))
    return path


@_apart
def districts(folder: Path, n: int) -> Path:
    """400 polygons of 64 corners that cover the ground of as many squares, and meet."""
    path = folder / f"districts-{n}.gpkg"
    step = int(np.ceil(n**0.5)) * GSD_M / 2
    corners = np.linspace(0, 1, 17)[:-1]
    rim = [
        (corners, 0 * corners),
        (1 + 0 * corners, corners),
        (1 - corners, 1 + 0 * corners),
        (0 * corners, 1 - corners),
    ]
    unit = np.concatenate([np.stack(each, axis=1) for each in rim])
    made = [
        shapely.Polygon(wavy((unit + np.array([x, y])) * step) + np.array([LEFT, TOP - 20 * step]))
        for x in range(20)
        for y in range(20)
    ]
    names = np.array([f"d{number}" for number in range(400)], object)
    shapes = shapely.to_wkb(np.array(made, object))
    pyogrio.raw.write(path, shapes, [names], ["name"], geometry_type="Polygon", crs=CRS, driver="GPKG")
    return path


def wavy(xy: Floats) -> Floats:
    """Places a little aside, the same for the same place."""
    step = 0.3 * GSD_M * 10
    return np.asarray(xy + step * np.sin(xy[:, ::-1] / (10 * step)))


@_apart
def pictures(folder: Path, n: int) -> Path:
    """A folder of n PNG of 64 px with a bright disc each."""
    path = folder / f"pictures-{n}"
    path.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(n):
        pixels = random.integers(40, 46, (64, 64), dtype=np.uint8)
        cv2.circle(pixels, (20 + number % 20, 30), 6, (210,), -1)
        if not (path / f"{number:04}.png").exists():
            cv2.imwrite(str(path / f"{number:04}.png"), pixels)
    return path


@_apart
def rectangle(folder: Path, side: int, dtype: str) -> Path:
    """A raster that is one object, but for two pixels at its edge; of 16 bits a label image."""
    path = folder / f"rectangle-{side}-{dtype}.tif"
    if path.exists():
        return path
    outside, inside = (20, 200) if dtype == "uint8" else (0, 1)
    with _written(path, side, dtype) as file:
        for top in range(0, side, 512):
            height = min(512, side - top)
            pixels = np.full((height, side), inside, dtype)
            pixels[:, :2] = pixels[:, -2:] = outside
            if top == 0:
                pixels[:2] = outside
            file.write(pixels, 1, window=Window(0, top, side, height))
    return path


def _written(path: Path, side: int, dtype: str, *, blocks: int = 512) -> rasterio.io.DatasetWriter:
    return rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=1, dtype=dtype, crs=CRS, tiled=True,
        transform=rasterio.Affine(GSD_M, 0, LEFT, 0, -GSD_M, TOP), compress="deflate", sparse_ok=True,
        blockxsize=blocks, blockysize=blocks,
    )  # fmt: skip


def _shapes(xy: Floats, kind: str, random: np.random.Generator) -> NDArray[np.object_]:
    """Points, boxes of 8 to 14 px, or polygons of as much with twelve corners."""
    if kind == "points":
        return np.asarray(shapely.points(xy))
    half = random.uniform(4, 7, xy.shape)
    if kind == "boxes":
        return np.asarray(shapely.box(*(xy - half).T, *(xy + half).T))
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    radius = half[:, :1] * random.uniform(0.8, 1, (len(xy), 12))
    corners = xy[:, None] + np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=-1)
    return np.asarray(shapely.polygons(corners))


def _write_features(
    path: Path, shapes: NDArray[np.object_], label: Sequence[str], score: Floats | None
) -> None:
    columns = {"label": np.array(label, object)} | ({} if score is None else {"score": score})
    if path.suffix == ".csv":
        import pandas

        bounds = shapely.bounds(shapes).round(3)
        are_points = bool((bounds[:, :2] == bounds[:, 2:]).all())
        names = ("x", "y") if are_points else ("xmin", "ymin", "xmax", "ymax")
        places = dict(zip(names, bounds.T, strict=False))
        pandas.DataFrame(places | columns).to_csv(path, index=False)
        return
    steps = (GSD_M, -GSD_M)
    placed = shapely.transform(shapes, lambda xy: xy * steps + (LEFT, TOP))
    crs = CRS
    if path.suffix == ".geojson":
        way = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)
        placed = shapely.transform(placed, lambda xy: np.stack(way.transform(*xy.T), axis=1))
        crs = "EPSG:4326"
    kind = "Point" if shapely.get_type_id(placed[0]) == 0 else "Polygon"
    pyogrio.raw.write(
        path, shapely.to_wkb(placed), list(columns.values()), list(columns), geometry_type=kind, crs=crs,
        driver=DRIVERS[path.suffix[1:]],
    )  # fmt: skip


if __name__ == "__main__":
    main()
