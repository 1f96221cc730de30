"""What a scan costs beside decoding, in seconds and seconds of CPU, start-up subtracted.

    python -m benchmarks.speed.scan /tmp/bench --size 20480
    python -m benchmarks.speed.scan /tmp/bench --sparse

| row | bar |
| a detector that does nothing | CPU at most 1.3 times that of decoding every block once |
| one that computes, one that waits | seconds at most 1.1 times the slower of decoding and detecting |
| `threshold` | seconds at most 2 times those of decoding in as many threads, aim 1.5 |
| sparse | a raster of 200,000 px with 1 % of data takes as long as its data |
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks.measuring import HERE, PLUGIN, Cost, best, cost_of, machine, make_command, scan_command, table
from ecodetect.cores import core_count

CORES = core_count()
SMALL_PX = 512  # the raster whose scan is nothing but start-up
SPARSE_PX, SPARSE_SHARE = 200_000, 0.01


def main() -> None:
    """Time scans and plain decoding of the same raster and print the difference."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="for the rasters; those that are there are used again")
    parser.add_argument("--size", type=int, default=20_480, help="side of the raster in pixels")
    parser.add_argument("--compress", default="deflate", choices=("deflate", "zstd", "lzw", "jpeg", "none"))
    parser.add_argument("--repeats", type=int, default=3, help="rounds; every round runs each row once")
    parser.add_argument("--rows", default="", help="only rows whose name contains this, and decoding")
    parser.add_argument("--sparse", action="store_true", help="a sparse raster against a dense one")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    small = _raster(given, SMALL_PX)
    print(f"{machine()}; best of {given.repeats}")
    if given.sparse:
        _sparse(given, small)
    else:
        _dense(given, small)


def _dense(given: argparse.Namespace, small: Path) -> None:
    raster = _raster(given, given.size)
    megapixels = given.size**2 / 1e6
    # As slow as decoding on one core, so that overlapping the two counts most.
    detecting = best([_decoding(raster, 1).less(_decoding(small, 1)) for _ in range(2)]).cpu_s
    # A halo of some pixels only: chips are no larger than what is searched.
    works = ["--set", f"seconds={detecting / megapixels:.6f}", "--set", "largest=1", "--workers", "1"]
    commands: dict[str, Callable[[Path], Cost]] = {
        "decode, 1 thread": lambda path: _decoding(path, 1),
        f"decode, {CORES} threads": lambda path: _decoding(path, CORES),
        "scan, nothing": lambda path: _scan(path, "idle"),
        "scan, computes, 1 worker": lambda path: _scan(path, "idle", *works),
        "scan, waits, 1 worker": lambda path: _scan(path, "idle", *works, "--set", "how=wait"),
        "scan, threshold, finds nothing": lambda path: _scan(path, "threshold", "--set", "level=0"),
        "scan, threshold": lambda path: _scan(path, "threshold"),
        "scan, threshold, to .csv": lambda path: _scan(path, "threshold", suffix="csv"),
    }
    wanted = {name: call for name, call in commands.items() if "decode" in name or given.rows in name}
    costs = _measured({(name, raster): call for name, call in wanted.items()}, small, given.repeats)
    once, decoding = costs["decode, 1 thread", raster], costs[f"decode, {CORES} threads", raster]
    lines = []
    for (name, _), cost in costs.items():
        slower = max(decoding.wall_s, cost.detecting_s)
        rate, cpu, wall = megapixels / cost.wall_s, cost.cpu_s / once.cpu_s, cost.wall_s / slower
        figures = [f"{cost.wall_s:.2f}", f"{cost.cpu_s:.2f}", f"{rate:.0f}", f"{cpu:.2f}", f"{wall:.2f}"]
        lines.append([name, *figures, f"{cost.peak_mb:.0f}"])
    print(f"{raster.name}: {given.size} x {given.size} px, 3 bands of uint8, {given.compress}")
    print(f"detectors that work take {detecting:.2f} s\n")
    header = ["", "s", "CPU s", "Mpx/s", "CPU / decoding once", "s / slower of decoding and detecting"]
    print(table([*header, "peak MB"], lines))


def _sparse(given: argparse.Namespace, small: Path) -> None:
    side = round(SPARSE_PX * SPARSE_SHARE**0.5)
    rasters = {_raster(given, side): "dense", _raster(given, SPARSE_PX, SPARSE_SHARE): "sparse"}
    models = {"idle": (), "threshold": ("--set", "level=126")}

    def scanning(model: str) -> Callable[[Path], Cost]:
        return lambda path: _scan(path, model, *models[model])

    calls = {(model, raster): scanning(model) for model in models for raster in rasters}
    rows = [
        [model, rasters[raster], f"{cost.wall_s:.2f}", f"{cost.cpu_s:.2f}", f"{cost.peak_mb:.0f}"]
        for (model, raster), cost in _measured(calls, small, given.repeats).items()
    ]
    print(f"{side:,} px a side, dense; {SPARSE_PX:,} px with as much data in squares here and there\n")
    print(table(["detector", "raster", "s", "CPU s", "peak MB"], rows))


def _measured(
    commands: Mapping[tuple[str, Path], Callable[[Path], Cost]], small: Path, repeats: int
) -> dict[tuple[str, Path], Cost]:
    """The best of each without start-up; the commands take turns, so that a busy minute hits them all."""
    costs: dict[tuple[str, Path], list[Cost]] = {key: [] for key in commands}
    for _ in range(repeats):
        for (name, raster), call in commands.items():
            start = call(small)
            costs[name, raster].append(call(raster).less(start))
    return {key: best(found) for key, found in costs.items()}


def _raster(given: argparse.Namespace, size: int, sparse: float | None = None) -> Path:
    kind = f"{given.compress}-sparse" if sparse else given.compress
    path: Path = given.folder / f"{kind}-{size}.tif"
    flags = ["--sparse", str(sparse)] if sparse else []
    cost_of(make_command(path, size, "--compress", given.compress, *flags))
    return path


def _decoding(path: Path, threads: int) -> Cost:
    return cost_of([sys.executable, str(HERE / "speed" / "decode.py"), str(path), "--threads", str(threads)])


def _scan(path: Path, model: str, *flags: str, suffix: str = "geojson") -> Cost:
    out, spent = path.with_name(f"speed.{suffix}"), path.with_name("idle.txt")
    spent.write_text("0", encoding="utf-8")
    command = scan_command(path, out, "-m", model, "--restart", *flags)
    cost = cost_of(command, extra={**PLUGIN, "IDLE_SPENT": str(spent)})
    return replace(cost, detecting_s=float(spent.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
