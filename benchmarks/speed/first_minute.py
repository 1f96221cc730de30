"""From a clean checkout to a map: seconds of each step, and of `--help` of every command.

    python -m benchmarks.speed.first_minute

Installing takes as long as the network does; what is ours is the rest.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import HERE, cost_of, machine, table


def main() -> None:
    """Time each step from a clean checkout to a map and print the seconds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--installed", action="store_true", help="only `--help`, of this environment")
    parser.add_argument("--repeats", type=int, default=3, help="of each `--help`; the median counts")
    given = parser.parse_args()
    print(machine())
    if given.installed:
        _help(Path(sys.executable).parent, given.repeats)
        return
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder) / "ecodetect"
        steps = []

        def step(name: str, command: list[str]) -> None:
            started = time.monotonic()
            subprocess.run(
                command, cwd=checkout if checkout.exists() else folder, check=True, capture_output=True
            )
            steps.append([name, f"{time.monotonic() - started:.1f}"])

        scripts = checkout / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
        step("git clone", ["git", "clone", "-q", str(HERE.parent), str(checkout)])
        step("python -m venv", [sys.executable, "-m", "venv", "venv"])
        step("pip install .", [str(scripts / "python"), "-m", "pip", "install", "-q", "."])
        program = str(scripts / "ecodetect")
        scan = ["scan", "sample_data/dryland.tif", "--picture", "map.png"]
        step("first scan with a map", [program, *scan])
        step("second scan with a map", [program, *scan, "--overwrite", "--restart"])
        print(table(["step", "s"], steps))
        _help(scripts, given.repeats)


def _help(scripts: Path, repeats: int) -> None:
    program = str(scripts / "ecodetect")
    listed = cost_of([program, "--help"]).output
    commands = re.findall(r"^  ([a-z-]+) {2,}", listed.partition("Commands:")[2], re.MULTILINE)
    rows = []
    for command in ("", *commands):
        costs = [cost_of([program, *command.split(), "--help"]) for _ in range(repeats)]
        wall = sorted(cost.wall_s for cost in costs)[repeats // 2]
        cpu = sorted(cost.cpu_s for cost in costs)[repeats // 2]
        rows.append([f"ecodetect {command} --help", f"{wall:.2f}", f"{cpu:.2f}"])
    print(table(["command", "s", "CPU s"], rows))


if __name__ == "__main__":
    main()
