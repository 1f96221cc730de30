"""`ecodetect scan` against sahi around the same function: time and how memory grows.

    python -m benchmarks.speed.against_sahi /tmp/bench --sizes 10000 30000

Needs `pip install sahi` in the environment that runs it. The function is `threshold` with boxes, at a fixed
level; with --model that of a trained model that takes pixels as they are, on a picture of its kind
(--picture), continued as in a mirror. Start-up (a scan of 512 px) is subtracted from the times; growth is the
peak beyond that of start-up. sahi holds the whole picture: at 30,000 px some 5 GB.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.measuring import HERE, Cost, best, cost_of, machine, make_command, scan_command, table
from benchmarks.speed.runtimes import continued

LEVEL = "126"
SMALL_PX = 512


def main() -> None:
    """Run both programs on rasters of several sizes and print time and memory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="for the rasters; those that are there are used again")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000], help="sides in pixels")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", help="a trained model")
    parser.add_argument("--picture", type=Path, help="with --model")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    commands: dict[str, Callable[[Path], Cost]] = {
        "ecodetect scan": _scan,
        "sahi, its slicer alone": lambda path: _sliced(path, "--slicer-only"),
        "sahi, get_sliced_prediction, NMS": _sliced,
    }
    if given.model:
        model = ("--model", given.model)
        commands = {
            "ecodetect scan": lambda path: _scan(path, "-m", given.model, "--device", "cpu"),
            "a plain loop over tiles, the same network": lambda path: _sliced(path, *model, "--plain"),
            "sahi, the same network": lambda path: _sliced(path, *model),
            "sahi, the same network in torch": lambda path: _sliced(path, *model, "--torch"),
        }
    rows = []
    for size in given.sizes:
        costs: dict[str, list[Cost]] = {name: [] for name in commands}
        starts: dict[str, list[Cost]] = {name: [] for name in commands}
        for _ in range(given.repeats):
            for name, call in commands.items():
                starts[name].append(call(_raster(given, SMALL_PX)))
                costs[name].append(call(_raster(given, size)))
        ours: tuple[float, float, float] | None = None
        for name in commands:
            start, cost = best(starts[name]), best(costs[name])
            wall, cpu = cost.wall_s - start.wall_s, cost.cpu_s - start.cpu_s
            growth = cost.peak_mb - start.peak_mb
            ours = ours or (wall, cpu, growth)
            rows.append([
                f"{size:,}", name, f"{wall:.2f}", f"{cpu:.2f}", f"{growth:.0f}",
                f"{wall / ours[0]:.1f}", f"{cpu / ours[1]:.1f}", f"{growth / ours[2]:.1f}",
            ])  # fmt: skip
    print(f"{machine()}; best of {given.repeats}; ratios: times what a scan takes\n")
    header = ["side, px", "", "s", "CPU s", "growth, MB", "s, ratio", "CPU, ratio", "growth, ratio"]
    print(table(header, rows))


def _raster(given: argparse.Namespace, size: int) -> Path:
    if given.picture:
        made: Path = given.folder / f"{given.picture.stem}_{size}.tif"
        return made if made.exists() else continued(given.picture, size, given.folder)
    path: Path = given.folder / f"deflate-{size}.tif"
    cost_of(make_command(path, size))
    return path


def _scan(path: Path, *flags: str) -> Cost:
    flags = flags or ("-m", "threshold", "--set", f"level={LEVEL}", "--set", "geometry=box")
    return cost_of(scan_command(path, path.with_name("sahi.csv"), *flags, "--restart"))


def _sliced(path: Path, *flags: str) -> Cost:
    return cost_of([sys.executable, str(HERE / "speed" / "sliced.py"), str(path), "--level", LEVEL, *flags])


if __name__ == "__main__":
    main()
