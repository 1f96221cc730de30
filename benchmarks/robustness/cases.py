"""Run the commands over folders of hard files and compare with what their cases.csv expects.

    python -m benchmarks.robustness.cases rasters FOLDER      scan FOLDER/file -m threshold for each row
    python -m benchmarks.robustness.cases annotations FOLDER  convert FOLDER/file --image FOLDER/raster

`rasters` rows say result, refuse or either; `annotations` rows say how many features are usable, or refuse. A
result is exit code 0 and a readable file; a refusal is exit code 2, one line on stderr naming the file, no
file left behind. Prints a line for each row that differs, and the numbers.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def run(*arguments: str) -> tuple[int, str, float]:
    """Run a command of ecodetect: exit status, stderr, and seconds."""
    started = time.monotonic()
    command = [sys.executable, "-m", "ecodetect_cli.main", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stderr.strip(), time.monotonic() - started


def judged(code: int, err: str, out: Path, file: str) -> str:
    """`result`, `refuse`, or what is wrong with the answer."""
    lines = [line for line in err.splitlines() if not line.startswith(("note:", "warning:"))]
    if code == 0:
        if not out.exists():
            return "exit 0 without a file"
        json.loads(out.read_text(encoding="utf-8"))
        return "result" if not lines else f"exit 0 and chatter: {lines[0][:100]}"
    if code != 2:
        return f"exit {code}: {err[-200:]}"
    if len(lines) != 1 or not lines[0].startswith("error: "):
        return f"{len(lines)} lines: {err[:200]}"
    if Path(file).name not in lines[0]:
        return f"doesn't name the file: {lines[0]}"
    left = [found.name for found in out.parent.iterdir()]
    return "refuse" if not left else f"left behind: {left}"


def of_rasters(folder: Path, only: str) -> int:
    """Scan each raster of a folder, print each result, and return the number of wrong ones."""
    wrong = 0
    for row in rows(folder, only):
        with tempfile.TemporaryDirectory() as place:
            out = Path(place) / "out.geojson"
            image = str(folder / row["file"])
            code, err, seconds = run("scan", image, "-m", "threshold", "-o", str(out), "-q")
            got, expected = judged(code, err, out, row["file"]), row["expected"]
            good = got == expected or (expected == "either" and got in ("result", "refuse"))
            said = len(json.loads(out.read_text(encoding="utf-8"))["features"]) if got == "result" else err
        wrong += not good
        mark = "ok  " if good else "BAD "
        print(f"{mark} {row['file']:34} {expected:7} {got[:150]} | {said} ({seconds:.1f} s)")
    return wrong


def of_annotations(folder: Path, only: str) -> int:
    """Convert each annotation file of a folder, print each result, and return the number of wrong ones."""
    wrong = 0
    for row in rows(folder, only):
        with tempfile.TemporaryDirectory() as place:
            out = Path(place) / "out.geojson"
            image = str((folder / row["raster"]).resolve())
            code, err, _ = run("convert", str(folder / row["file"]), str(out), "--image", image)
            got = judged(code, err, out, row["file"])
            if got == "result":
                got = str(len(json.loads(out.read_text(encoding="utf-8"))["features"]))
        also = row["also_acceptable"]
        spans = re.findall(r"(\d+) to (\d+)", also)
        expected = row["expected_usable"]
        fine = got == expected or got in re.findall(r"\d+|refuse", also)
        fine |= any(got.isdigit() and int(low) <= int(got) <= int(high) for low, high in spans)
        wrong += not fine
        print(f"{'ok  ' if fine else 'BAD '} {row['file']:50} {expected:7} got {got} | {err[:160]}")
    return wrong


def rows(folder: Path, only: str) -> list[dict[str, str]]:
    """The rows of a folder's `cases.csv` whose file name contains `only`."""
    with (folder / "cases.csv").open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if only in row["file"]]


def main() -> int:
    """Run the cases of a folder; returns 1 if one has a wrong result."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("kind", choices=["rasters", "annotations"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="only files with this in their name")
    given = parser.parse_args()
    wrong = {"rasters": of_rasters, "annotations": of_annotations}[given.kind](given.folder, given.only)
    print(f"{wrong} rows differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
