"""Kill scans (SIGKILL) at random moments, run them again, and compare the files byte for byte.

    python -m benchmarks.robustness.kills /tmp/bench --kills 50
    python -m benchmarks.robustness.kills /tmp/bench --kills 20 -m nuclei --size 2000  # a network
    python -m benchmarks.robustness.kills /tmp/bench --kills 0 --full /mnt/small      # a disk that is full

Each round starts again, is killed once, and is run again until it ends well. A third of the kills are aimed
at the writing of the output. After each kill the output either isn't there or is whole; in the end nothing is
left beside it. With `--chain` one scan is killed again and again until it gets through.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import time
from pathlib import Path

from benchmarks.measuring import PLUGIN, cost_of, make_command, scan_command, table

SUFFIXES = ("geojson", "csv", "fgb", "parquet", "gpkg")
PATIENCE_S = 600


def main() -> None:
    """Kill and repeat scans, and print how many outputs differ from an undisturbed one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="for the raster and the outputs")
    parser.add_argument("--kills", type=int, default=50, help="per format")
    parser.add_argument("--chain", type=int, default=10, help="kills of one and the same scan at most")
    parser.add_argument("--size", type=int, default=6_000, help="side of the raster in pixels")
    parser.add_argument("--suffixes", nargs="+", default=SUFFIXES)
    parser.add_argument("-m", "--model", default="threshold")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--full", type=Path, metavar="FOLDER", help="a file system of a few MB to be filled")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    raster = given.folder / f"deflate-{given.size}.tif"
    cost_of(make_command(raster, given.size))
    if given.kills:
        rows = [_rounds(given, raster, suffix) for suffix in given.suffixes]
        header = [
            "format",
            "kills",
            "in the search",
            "in the writing",
            "before or after",
            "chain",
            "different",
        ]
        print(table([*header, "half a file", "left behind"], rows))
    if given.full:
        rows = [row for suffix in given.suffixes for row in _full(given, raster, suffix)]
        header = ["format", "message", "exit code", "journal kept", "half a file", "same after more room"]
        print(table([*header, "left behind"], rows))


def _rounds(given: argparse.Namespace, raster: Path, suffix: str) -> list[object]:
    chance = random.Random(f"{given.seed} {suffix}")
    folder = given.folder / f"kills-{suffix}"
    folder.mkdir(exist_ok=True)
    out = folder / f"found.{suffix}"
    command = scan_command(raster, out, "-m", given.model)
    _clear(folder)
    seconds = cost_of(command, extra=PLUGIN).wall_s
    right = out.read_bytes()
    moments = {"search": 0, "writing": 0, "other": 0}
    different = half = left = 0
    for nth in range(given.kills):
        _clear(folder)
        moment = _killed(command, out, chance, seconds, aimed=nth % 3 == 2)
        moments[moment] += 1
        half += out.exists() and out.read_bytes() != right
        cost_of(command, extra=PLUGIN)
        different += out.read_bytes() != right
        left += _others(folder, out)
    _clear(folder)
    chain = 0
    while chain < given.chain and _killed(command, out, chance, seconds / 3, aimed=False) != "other":
        chain += 1
        half += out.exists() and out.read_bytes() != right
    cost_of(command, extra=PLUGIN)
    different += out.read_bytes() != right
    left += _others(folder, out)
    _clear(folder)
    folder.rmdir()
    return [suffix, given.kills, *moments.values(), chain, different, half, left]


def _killed(command: list[str], out: Path, chance: random.Random, seconds: float, *, aimed: bool) -> str:
    """Run, kill, and say where.

    aimed : wait for the writing to begin.
    Returns `search` (the journal was there), `writing` (the unfinished output was) or `other`.
    """
    stage, journal = out.with_name(f".{out.name}.part"), out.with_name(f"{out.name}.journal")
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **PLUGIN}
    ) as process:
        # Importing libraries is killed too, but seldom: nothing is lost there.
        anchored = aimed or chance.random() < 0.9
        end = time.monotonic() + PATIENCE_S
        while anchored and process.poll() is None and time.monotonic() < end:
            if (stage if aimed else journal).exists():
                break
            time.sleep(0.001)
        wait = chance.random() * (0.15 if aimed else 0.8 * seconds)
        try:
            process.wait(timeout=wait)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    if process.returncode == 0:
        return "other"
    if stage.exists() and any(stage.iterdir()):
        return "writing"
    return "search" if journal.exists() else "other"


def _full(given: argparse.Namespace, raster: Path, suffix: str) -> list[list[object]]:
    """Scan onto a disk with less and less room; make room; scan again.  A row for each new message."""
    folder: Path = given.full
    _clear(folder)
    ample = given.folder / f"full.{suffix}"
    cost_of(scan_command(raster, ample, "-m", "threshold"), extra=PLUGIN)
    right = ample.read_bytes()
    ample.unlink()
    out, ballast = folder / ample.name, folder / "ballast"
    command = scan_command(raster, out, "-m", "threshold")
    rows: dict[str, list[object]] = {}
    # The journal's size isn't known beforehand, so the room is made smaller step by step.
    room = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    for left_free in (1.0, 0.7, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05):
        _clear(folder)
        ballast.write_bytes(b"x" * int(room * (1 - left_free)))
        result = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **PLUGIN}, check=False
        )
        ballast.unlink()
        if result.returncode == 0:
            continue
        said = result.stderr.strip()
        kept = out.with_name(f"{out.name}.journal").exists()
        half = out.exists()
        cost_of(command, extra=PLUGIN)
        same = out.read_bytes() == right
        left = _others(folder, out)
        rows.setdefault(said, [suffix, said, result.returncode, kept, half, same, left])
    _clear(folder)
    return list(rows.values())


def _others(folder: Path, out: Path) -> int:
    """Entries beside the output and its style."""
    return sum(1 for entry in folder.iterdir() if entry not in (out, out.with_suffix(".qml")))


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            for file in entry.iterdir():
                file.unlink()
            entry.rmdir()
        else:
            entry.unlink()


if __name__ == "__main__":
    main()
