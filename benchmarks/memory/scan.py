"""Peak memory of whole `ecodetect scan` processes: by the raster's size, under a limit, with many detections.

    python -m benchmarks.memory.scan /tmp/bench
    python -m benchmarks.memory.scan /tmp/bench --sizes 5000 20000 60000 --parts sizes

| part | bar |
| sizes | the same within 10 %, below 500 MB |
| limits | `--max-memory` is kept, or refused beforehand |
| strips | what strips of one row cost is said |
| crowds | a million detections written without holding them all |
| maps | with `--score-map` the same for any size too |
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.measuring import PLUGIN, Cost, cost_of, make_command, scan_command, table

PARTS = ("sizes", "limits", "strips", "crowds", "maps")


def main() -> None:
    """Scan in processes of their own and print the peak memory of each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="for the rasters; those that are there are used again")
    parser.add_argument("--sizes", type=int, nargs="+", default=[5_000, 20_000], help="sides in pixels")
    parser.add_argument("--limits", nargs="+", default=["250MB", "300MB", "350MB", "400MB", "600MB", "1GB"])
    parser.add_argument("--suffixes", nargs="+", default=["geojson", "csv", "fgb", "gpkg", "parquet"])
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--repeats", type=int, default=3, help="the highest peak counts")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if "sizes" in given.parts:
        _sizes(given)
    if "limits" in given.parts:
        _limits(given)
    if "strips" in given.parts:
        _strips(given)
    if "crowds" in given.parts:
        _crowds(given)
    if "maps" in given.parts:
        _maps(given)


def _sizes(given: argparse.Namespace) -> None:
    rows = []
    least = None
    for size in given.sizes:
        raster = _raster(given.folder, size)
        cost = _worst(given, raster, "threshold")
        least = least or cost.peak_mb
        change = f"{cost.peak_mb / least - 1:+.1%}"
        rows.append([f"{size:,}", f"{cost.peak_mb:.0f}", change, f"{cost.wall_s:.0f}", f"{cost.cpu_s:.0f}"])
    print("\n`threshold`, RGB, tiles of 512 px in deflate\n")
    print(table(["side, px", "peak MB", "", "s", "CPU s"], rows))


def _limits(given: argparse.Namespace) -> None:
    raster = _raster(given.folder, given.sizes[-1])
    rows = []
    for limit in given.limits:
        try:
            cost = _worst(given, raster, "threshold", "--max-memory", limit)
            rows.append([limit, f"{cost.peak_mb:.0f}", f"{cost.wall_s:.0f}", f"{cost.cpu_s:.0f}"])
        except RuntimeError as error:
            rows.append([limit, str(error).splitlines()[-1], "", ""])
    print(f"\n`--max-memory`, {raster.name}\n")
    print(table(["limit", "peak MB", "s", "CPU s"], rows))


def _strips(given: argparse.Namespace) -> None:
    rows = []
    for size in given.sizes:
        for kind in ("tiles", "strips"):
            raster = _raster(given.folder, size, *(["--strips"] if kind == "strips" else []))
            cost = _worst(given, raster, "threshold")
            rows.append([f"{size:,}", kind, f"{cost.peak_mb:.0f}", f"{cost.wall_s:.0f}", f"{cost.cpu_s:.0f}"])
    print("\nStrips of one row against tiles of 512 px\n")
    print(table(["side, px", "", "peak MB", "s", "CPU s"], rows))


def _crowds(given: argparse.Namespace) -> None:
    raster = _raster(given.folder, 20_000)
    rows = []
    for suffix in given.suffixes:
        for spacing in (60, 20):
            for copies in (1, 3) if suffix == given.suffixes[0] else (1,):
                flags = ["--set", f"spacing={spacing}", "--set", f"copies={copies}"]
                cost = _worst(given, raster, "crowded", *flags, suffix=suffix)
                found = (20_000 // spacing) ** 2
                rows.append([suffix, f"{found:,}", copies, f"{cost.peak_mb:.0f}", f"{cost.wall_s:.0f}"])
    print("\nDetections written (with 3 copies: that many settled for each)\n")
    print(table(["format", "objects, about", "copies", "peak MB", "s"], rows))


def _maps(given: argparse.Namespace) -> None:
    rows = []
    for size in given.sizes:
        raster, out = _raster(given.folder, size), given.folder / "map.tif"
        for cell in (1, 16):
            flags = ["--set", f"map={cell}", "--score-map", str(out)]
            cost = _worst(given, raster, "idle", *flags)
            written = f"{out.stat().st_size / 1e6:,.0f}"
            out.unlink()
            figures = (cost.peak_mb, cost.wall_s, cost.cpu_s)
            rows.append([f"{size:,}", cell, written, *(f"{figure:.0f}" for figure in figures)])
    print("\n`--score-map` of a detector that does nothing else\n")
    print(table(["side, px", "cell, px", "map, MB", "peak MB", "s", "CPU s"], rows))


def _raster(folder: Path, size: int, *flags: str) -> Path:
    kind = "-strips" if "--strips" in flags else ""
    path = folder / f"deflate{kind}-{size}.tif"
    cost_of(make_command(path, size, *flags))
    return path


def _worst(given: argparse.Namespace, raster: Path, model: str, *flags: str, suffix: str = "geojson") -> Cost:
    out = given.folder / f"memory.{suffix}"
    command = scan_command(raster, out, "-m", model, "--restart", *flags)
    costs = [cost_of(command, extra=PLUGIN) for _ in range(given.repeats)]
    out.unlink()
    return max(costs, key=lambda cost: cost.peak_mb)


if __name__ == "__main__":
    main()
