"""Do two versions of ecodetect give the same bytes? Every detector and every format, on real rasters.

    python -m benchmarks.robustness.same_bytes bundles FOLDER
    python -m benchmarks.robustness.same_bytes run FOLDER OUT.json RASTER...
    python -m benchmarks.robustness.same_bytes compare OLD.json NEW.json

`bundles` makes a small bundle of every learned detector, once. `run`, with each version on the path, writes
hashes of each output, and `compare` ends with 1 where they differ. This is no test, since a test has one
version only: use it when modules move and nothing else should change.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

WITHOUT_WEIGHTS = ("threshold", "blobs", "selective_search")
SHIPPED = ("shrubs", "trees", "trees-rgb", "nuclei")
FORMATS = (
    ".gpkg",
    ".parquet",
    ".fgb",
    ".shp",
    ".kml",
    ".csv",
    ".tsv",
    ".json",
    ".xml",
    ".txt",
    ".png",
    ".tif",
)


def main() -> int:
    """Make bundles, run all detectors and formats, or compare two runs, as the arguments say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    made = verbs.add_parser("bundles")
    made.add_argument("folder", type=Path)
    ran = verbs.add_parser("run")
    ran.add_argument("folder", type=Path)
    ran.add_argument("out", type=Path)
    ran.add_argument("rasters", type=Path, nargs="+")
    compared = verbs.add_parser("compare")
    compared.add_argument("old", type=Path)
    compared.add_argument("new", type=Path)
    given = parser.parse_args()
    if given.verb == "bundles":
        make_bundles(given.folder)
        return 0
    if given.verb == "run":
        found = answers(given.folder, given.rasters)
        given.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
        return 0
    return compare(given.old, given.new)


def make_bundles(folder: Path) -> None:
    """A bundle with random weights for every learned detector."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
    import learned

    from ecodetect.bundle.file import write

    folder.mkdir(parents=True, exist_ok=True)
    for name in [*learned.NETWORKS, "obia"]:
        write(folder / f"{name}.safetensors", learned.bundle(learned.card(name)))


def answers(folder: Path, rasters: list[Path]) -> dict[str, Any]:
    """What every scan of the rasters gives, by `raster detector` and `raster threshold .format`."""
    found = {}
    for raster in rasters:
        bundles = sorted(str(path) for path in folder.glob("*.safetensors"))
        for model in (*WITHOUT_WEIGHTS, *bundles, *SHIPPED):
            found[f"{raster.name} {Path(model).stem}"] = scanned(raster, model, ".geojson")
        for suffix in FORMATS:
            found[f"{raster.name} threshold {suffix}"] = scanned(raster, "threshold", suffix)
    return found


def scanned(raster: Path, model: str, suffix: str) -> dict[str, str] | str:
    """Hashes of all files that a scan writes by their names, or the message where it refuses."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, f"found{suffix}")
        words = ["scan", str(raster), "-m", model, "-o", str(target), "--quiet"]
        done = subprocess.run(
            [sys.executable, "-m", "ecodetect_cli", *words], capture_output=True, text=True, check=False
        )
        if done.returncode:
            return done.stderr.replace(folder, "")
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in files}


def compare(old: Path, new: Path) -> int:
    """Print what differs; 1 if anything does."""
    before, after = (json.loads(path.read_text(encoding="utf-8")) for path in (old, new))
    names = sorted(before.keys() | after.keys())
    apart = [name for name in names if before.get(name) != after.get(name)]
    for name in apart:
        print(name, before.get(name), after.get(name), sep="\n  ")
    files = sum(len(each) for each in before.values() if isinstance(each, dict))
    refused = sum(isinstance(each, str) for each in before.values())
    print(f"{len(before)} scans, {files} files, {refused} refused, {len(apart)} differ")
    return int(bool(apart))


if __name__ == "__main__":
    sys.exit(main())
