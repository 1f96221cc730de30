"""What a scan costs beside decoding, in seconds and seconds of CPU, start-up subtracted.

    python benchmarks/speed.py /tmp/bench --size 20000

| row | bar |
| a detector that does nothing | CPU at most 1.3 times that of decoding every block once |
| one that computes, one that waits | seconds at most 1.1 times the slower of decoding and detecting |
| `threshold` | seconds at most 2 times those of decoding in as many threads, aim 1.5 |
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from measuring import HERE, PLUGIN, Cost, cost_of, machine, make_command, median, scan_command, table

CORES = os.cpu_count() or 1
SMALL_PX = 512  # the raster whose scan is nothing but start-up


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", type=Path, help="for the rasters; those that are there already are used again"
    )
    parser.add_argument("--size", type=int, default=20_000, help="side of the raster in pixels")
    parser.add_argument("--compress", default="deflate", choices=("deflate", "zstd", "lzw", "jpeg", "none"))
    parser.add_argument("--repeats", type=int, default=3, help="rounds; every round runs each row once")
    parser.add_argument("--rows", default="", help="only rows whose name contains this, and decoding")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)

    rasters = {}
    for size in (SMALL_PX, given.size):
        rasters[size] = given.folder / f"{given.compress}-{size}.tif"
        cost_of(make_command(rasters[size], size, "--compress", given.compress))
    megapixels = given.size**2 / 1e6
    once = _measured({"": lambda path: _decoding(path, 1)}, rasters, given.size, 1)[""]
    # As slow as decoding, so that overlapping both counts most.
    detecting = once.cpu_s / megapixels
    commands: dict[str, Callable[[Path], Cost]] = {
        "decode, 1 thread": lambda path: _decoding(path, 1),
        f"decode, {CORES} threads": lambda path: _decoding(path, CORES),
        "scan, nothing": lambda path: _scan(path, "idle"),
        "scan, computes, 1 worker": lambda path: _scan(
            path, "idle", "--set", f"seconds={detecting:.6f}", "--workers", "1"
        ),
        "scan, waits, 1 worker": lambda path: _scan(
            path, "idle", "--set", f"seconds={detecting:.6f}", "--set", "how=wait", "--workers", "1"
        ),
        "scan, threshold": lambda path: _scan(path, "threshold"),
        "scan, threshold, level=150": lambda path: _scan(path, "threshold", "--set", "level=150"),
    }
    wanted = {name: call for name, call in commands.items() if "decode" in name or given.rows in name}
    costs = _measured(wanted, rasters, given.size, given.repeats)

    one, all_threads = costs["decode, 1 thread"], costs[f"decode, {CORES} threads"]
    lines = []
    for name, cost in costs.items():
        working = "computes" in name or "waits" in name
        slower = max(all_threads.wall_s, detecting * megapixels) if working else all_threads.wall_s
        lines.append([
            name, f"{cost.wall_s:.2f}", f"{cost.cpu_s:.2f}", f"{megapixels / cost.wall_s:.0f}", f"{cost.cpu_s / one.cpu_s:.2f}",
            f"{cost.wall_s / slower:.2f}", f"{cost.peak_mb:.0f}",
        ])  # fmt: skip
    print(
        f"{given.size} x {given.size} px, 3 bands of uint8, {given.compress}; {machine()}; median of {given.repeats}"
    )
    print(f"detectors that work take {detecting * megapixels:.2f} s for the raster's own pixels\n")
    header = [
        "",
        "s",
        "CPU s",
        "Mpx/s",
        "CPU / decode once",
        f"s / slower of decode ({CORES} threads) and detect",
        "peak MB",
    ]
    print(table(header, lines))


def _measured(
    commands: dict[str, Callable[[Path], Cost]], rasters: dict[int, Path], size: int, repeats: int
) -> dict[str, Cost]:
    """Medians without start-up; the commands take turns, so that a busy minute hits them all."""
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, call in commands.items():
            start = call(rasters[SMALL_PX])
            costs[name].append(call(rasters[size]).less(start))
    return {name: median(found) for name, found in costs.items()}


def _decoding(path: Path, threads: int) -> Cost:
    return cost_of([sys.executable, str(HERE / "decode.py"), str(path), "--threads", str(threads)])


def _scan(path: Path, model: str, *flags: str) -> Cost:
    out = path.with_name("speed.geojson")
    return cost_of(scan_command(path, out, "-m", model, "--restart", *flags), extra=PLUGIN)


if __name__ == "__main__":
    main()
