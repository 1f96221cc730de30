"""Spoil files of every format that features are read from, and see that each gives a layer or one sentence.

    python benchmarks/fuzz_readers.py --cases 100000 --seconds 600

Each reader has a process of its own (a crash of a library is then seen as one), good files made here, and a
seed. Prints, per reader: cases, layers, refusals, tracebacks, the slowest case and the peak of memory. Files
that break a reader are kept in the folder that the last line names. Exit code 1 if there are any.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import shapely
from pyproj import CRS

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from annotation_files import GRID, IMAGE, write_all

from ecodetect import formats
from ecodetect.errors import UserError
from ecodetect.grid import Grid
from ecodetect.layer import Layer, Stream

HANG_S = 30  # a case that takes longer ends its process with the place where it was
ON_MAP = Grid(40, 30, (0.5, 0.0, 404_000.0, 0.0, -0.5, 3_285_000.0), CRS.from_epsg(32617))
KML = (
    '<kml xmlns="http://www.opengis.net/kml/2.2"><Document><Folder><name>a</name>'
    "<Placemark><name>t</name><Point><coordinates>-81.99,29.69,3</coordinates></Point></Placemark>"
    "<Placemark><Polygon><outerBoundaryIs><LinearRing><coordinates>-81.99,29.69 -81.98,29.69"
    " -81.98,29.70 -81.99,29.69</coordinates></LinearRing></outerBoundaryIs></Polygon></Placemark>"
    "</Folder></Document></kml>"
)
GPX = (
    '<gpx version="1.1" xmlns="http://www.topografix.com/GPX/1/1">'
    '<wpt lat="29.69" lon="-81.99"><name>a</name></wpt><wpt lat="29.691" lon="-81.991"/></gpx>'
)
SEQUENCE = (
    '{"type":"Feature","geometry":{"type":"Point","coordinates":[-81.99,29.69]},"properties":{"a":1}}\n'
    '{"type":"Feature","geometry":{"type":"Polygon","coordinates":[[[0,0],[1,0],[1,1],[0,0]]]},"properties":null}\n'
)


def good_files(folder: Path) -> dict[str, Path]:
    """A small good file of each format, by name."""
    paths = write_all(folder)
    geometry = np.array([*shapely.points([[3.0, 4.0], [9.0, 8.0]]), shapely.box(1, 1, 5, 5)], dtype=object)
    columns = {"label": np.array(["a", "Föhre", ""], dtype=object), "score": np.array([0.5, np.nan, 1.0])}
    for suffix in (".geojson", ".gpkg", ".parquet", ".fgb", ".shp"):
        rows = slice(2, 3) if suffix == ".shp" else slice(None)
        kept = {name: values[rows] for name, values in columns.items()}
        layer = Layer(geometry[rows], kept, grid=ON_MAP)
        kinds = {"label": "str", "score": "float"}
        paths[f"layer{suffix}"] = folder / f"layer{suffix}"
        formats.write(
            folder / f"layer{suffix}",
            Stream([layer], "Polygon" if suffix == ".shp" else "Unknown", kinds, grid=ON_MAP),
        )
    paths["layer.dbf"] = folder / "layer.dbf"
    for name, text in (("places.kml", KML), ("places.gpx", GPX), ("places.geojsonl", SEQUENCE)):
        paths[name] = folder / name
        paths[name].write_text(text, encoding="utf-8")
    return paths


WORDS = (
    *(
        b"-1",
        b"0",
        b"1e999",
        b"nan",
        b"NaN",
        b"Infinity",
        b"99999999999999999999",
        b"1_0",
        b"null",
        b"true",
        b"[]",
    ),
    *(
        b"{}",
        b'""',
        b"'",
        b'"',
        b",",
        b";",
        b"\t",
        b"\n",
        b"\r",
        b"\0",
        b"\xff\xff\xff\xff",
        b"\xfe\xff",
        b"\xc3",
        b"<",
    ),
    *(
        b">",
        b"&",
        b"<!DOCTYPE a [<!ENTITY e 'e'>]>",
        b"&e;",
        b"[[[[[[[[",
        b"../",
        b"\x7f\xff\xff\xff",
        b"EMPTY",
    ),
)


def spoilt(data: bytes, chance: random.Random) -> bytes:
    """`data` with one to five places overwritten, doubled, taken out, cut off or swapped."""
    for _ in range(chance.choice((1, 1, 1, 2, 3, 5))):
        start, length = chance.randrange(len(data) + 1), chance.choice((1, 1, 2, 4, 8, 40, 200))
        what = chance.choice(WORDS) if chance.random() < 0.5 else chance.randbytes(chance.randint(1, 6))
        kind = chance.randrange(10)
        part = data[start : start + length]
        if kind == 0 and chance.random() < 0.2:
            data = data[:start]
        elif kind == 1:
            data = data[:start] + data[start + length :]
        elif kind == 2:
            data = data[:start] + part * chance.choice((2, 3, 50)) + data[start + length :]
        elif kind == 3:
            data = data[:start] + what + data[start:]
        elif kind == 4 and start < len(data):
            data = data[:start] + bytes([data[start] ^ 1 << chance.randrange(8)]) + data[start + 1 :]
        elif kind == 5:
            other = chance.randrange(len(data) + 1)
            data = data[:start] + data[other : other + length] + data[start + length :]
        elif kind == 6:
            data = data[:start] + what + data[start + len(what) :]
        else:  # one number or name, so that a text stays well-formed and the fault goes deeper
            words = list(re.finditer(rb"[-+.\w]+", data))
            if words:
                begin, end = chance.choice(words).span()
                data = data[:begin] + what + data[end:]
    return data


def attack(name: str, cases: int, seconds: float, seed: int, kept: Path) -> bool:
    """Run the cases of one reader in this process; True if nothing unexpected happened."""
    chance = random.Random(f"{seed} {name}")
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as folder:
        good = good_files(Path(folder))
        path = good[name]
        opened = path.with_suffix(".shp") if path.suffix == ".dbf" else path
        data = path.read_bytes()
        formats.read(opened, grid=GRID, image=IMAGE)
        counts: Counter[str] = Counter()
        slowest, peak, start = 0.0, process.memory_info().rss, time.monotonic()
        for case in range(cases):
            if time.monotonic() - start > seconds:
                break
            bad = spoilt(data, chance)
            path.write_bytes(bad)
            (kept / f"running_{name}").write_bytes(bad)
            grid, image = chance.choice(((GRID, IMAGE), (ON_MAP, IMAGE), (ON_MAP, None), (None, None)))
            began = time.monotonic()
            faulthandler.dump_traceback_later(HANG_S, exit=True)
            try:
                formats.read(opened, grid=grid, image=image)
                counts["layers"] += 1
            except UserError:
                counts["refusals"] += 1
            except Exception:  # noqa: BLE001 - what is looked for
                counts["tracebacks"] += 1
                if counts["tracebacks"] <= 3:
                    (kept / f"{case}_{name}").write_bytes(bad)
                    traceback.print_exc()
            faulthandler.cancel_dump_traceback_later()
            slowest = max(slowest, time.monotonic() - began)
            peak = max(peak, process.memory_info().rss)
        (kept / f"running_{name}").unlink()
        seconds = time.monotonic() - start
    numbers = (sum(counts.values()), counts["layers"], counts["refusals"], counts["tracebacks"])
    measured = (f"{slowest:.2f}", f"{peak / 2**20:.0f}", f"{seconds:.0f}")
    print(f"{name:20} " + " ".join(f"{value:>10}" for value in (*numbers, *measured)), flush=True)
    return counts["tracebacks"] == 0


def main() -> int:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=100_000, help="per reader")
    parser.add_argument("--seconds", type=float, default=600, help="at most, per reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kept", type=Path, help="folder for files that break a reader")
    parser.add_argument("--reader", help="one reader, in this process")
    given = parser.parse_args()
    kept = given.kept or Path(tempfile.mkdtemp(prefix="fuzz_"))
    kept.mkdir(exist_ok=True)
    if given.reader:
        return 0 if attack(given.reader, given.cases, given.seconds, given.seed, kept) else 1
    with tempfile.TemporaryDirectory() as folder:
        names = list(good_files(Path(folder)))
    heads = ("cases", "layers", "refusals", "tracebacks", "slowest s", "peak MB", "s")
    print(f"{'reader':20} " + " ".join(f"{head:>10}" for head in heads), flush=True)
    broken = 0
    for name in names:
        command = [
            sys.executable,
            __file__,
            "--reader",
            name,
            "--kept",
            os.fspath(kept),
            "--seed",
            str(given.seed),
        ]
        command += ["--cases", str(given.cases), "--seconds", str(given.seconds)]
        code = subprocess.run(command, check=False).returncode
        if code:
            broken += 1
            if code != 1:
                print(f"{name}: the process ended with {code}")
    if broken:
        print(f"{broken} readers broke; their files are in {kept}")
    else:
        shutil.rmtree(kept)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
