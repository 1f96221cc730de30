"""Spoil files of every format that features are read from, with the files beside them.

python -m benchmarks.robustness.fuzz_readers --minutes 20
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyogrio
import shapely
from pyproj import CRS

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from annotation_files import GRID, IMAGE, TEXTS, write_all
from foreign_files import read_layer

from benchmarks.robustness.fuzzing import Target, command, main
from ecodetect.errors import LayerError
from ecodetect.formats import files as formats
from ecodetect.grid import Grid
from ecodetect.layer import Layer, Stream

ON_MAP = Grid(40, 30, (0.5, 0.0, 404_000.0, 0.0, -0.5, 3_285_000.0), CRS.from_epsg(32617))
FRAMES = ((GRID, IMAGE), (ON_MAP, IMAGE), (ON_MAP, None), (None, None))
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
CURVES = (
    "CURVEPOLYGON (CIRCULARSTRING (401 995, 403 997, 405 995, 403 993, 401 995))",
    "MULTISURFACE (((401 995, 403 997, 405 995, 401 995)))",
)


def make(folder: Path) -> dict[str, str]:
    """Good files of all formats, each in a folder of its own."""
    opened: dict[str, str] = {}
    for name in (*TEXTS, "labels.tif", "labels.png"):
        place = _place(folder, name, opened)
        if name == "data.yaml":  # with pictures and labels beside it
            write_all(place)
            for other in (*TEXTS, "labels.tif", "labels.png"):
                if other not in ("data.yaml", "yolo.txt"):
                    (place / other).unlink()
        else:
            with_others = place.with_name("all")
            with_others.mkdir()
            write_all(with_others)[name].rename(place / name)
            shutil.rmtree(with_others)
    _write_layers(folder, opened)
    for name, text in (("places.kml", KML), ("places.gpx", GPX), ("places.geojsonl", SEQUENCE)):
        (_place(folder, name, opened) / name).write_text(text, encoding="utf-8")
    with zipfile.ZipFile(_place(folder, "places.kmz", opened) / "places.kmz", "w") as archive:
        archive.writestr("doc.kml", KML)
    _write_in_use(folder, opened)
    for name, path in opened.items():
        _check(folder / name / path)
    return opened


def _check(path: Path) -> None:
    """Raise the last refusal where a good file is read on no grid."""
    for grid, image in FRAMES:
        try:
            read_layer(path, grid, image)
            return
        except LayerError as error:
            refusal = error
    raise refusal


def _place(folder: Path, name: str, opened: dict[str, str]) -> Path:
    place = folder / name.replace(".", "_")
    place.mkdir()
    opened[place.name] = name
    return place


def _write_layers(folder: Path, opened: dict[str, str]) -> None:
    """Layers as we write them, and as GDAL does."""
    geometry = np.array([*shapely.points([[3.0, 4.0], [9.0, 8.0]]), shapely.box(1, 1, 5, 5)], dtype=object)
    columns = {"label": np.array(["a", "Föhre", ""], dtype=object), "score": np.array([0.5, np.nan, 1.0])}
    kinds = {"label": "str", "score": "float"}
    for suffix in (".geojson", ".gpkg", ".parquet", ".fgb", ".shp", ".csv"):
        name = f"layer{suffix}"
        rows = slice(2, 3) if suffix == ".shp" else slice(0, 2) if suffix == ".csv" else slice(None)
        kept = {each: values[rows] for each, values in columns.items()}
        kind = "Polygon" if suffix == ".shp" else "Point" if suffix == ".csv" else "Unknown"
        layer = Layer(geometry[rows], kept, grid=ON_MAP)
        formats.write(_place(folder, name, opened) / name, Stream([layer], kind, kinds, grid=ON_MAP))
    for name, driver in (
        ("foreign.gml", "GML"),
        ("foreign.tab", "MapInfo File"),
        ("foreign.mif", "MapInfo File"),
        ("foreign.gdb", "OpenFileGDB"),
    ):
        path = _place(folder, name, opened) / name
        points = shapely.to_wkb(shapely.points([[404_001.0, 3_284_990.0], [404_003.0, 3_284_995.0]]))
        _write_foreign(path, points, "Point", driver)
    path = _place(folder, "curves.gpkg", opened) / "curves.gpkg"
    _write_foreign(path, np.array([_curve(text) for text in CURVES], dtype=object), "Unknown", "GPKG")


def _write_foreign(path: Path, shapes: np.ndarray, kind: str, driver: str) -> None:
    """A layer as other programs have GDAL write it.  shapes : WKB of two."""
    labels = np.array(["a", "b"], dtype=object)
    more = {"geometry_type": kind, "crs": "EPSG:32617", "driver": driver}
    pyogrio.raw.write(path, shapes, [labels], ["label"], **more)


def _write_in_use(folder: Path, opened: dict[str, str]) -> None:
    """A GeoPackage with the -wal of a program that has it open."""
    path = folder / "layer_gpkg" / "layer.gpkg"
    place, elsewhere = _place(folder, "busy.gpkg", opened), folder / "elsewhere.gpkg"
    shutil.copyfile(path, elsewhere)
    with sqlite3.connect(elsewhere) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("UPDATE gpkg_contents SET description = 'edited'")
        database.commit()
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{elsewhere}{suffix}", place / f"busy.gpkg{suffix}")
    database.close()
    elsewhere.unlink()


def _curve(text: str) -> bytes:
    """WKB of what shapely has no class for: ISO's, little-endian."""
    numbers = [float(number) for number in text.replace("(", " ").replace(")", " ").replace(",", " ").split()
               if number[0].isdigit()]  # fmt: skip
    ring = struct.pack("<I", len(numbers) // 2) + struct.pack(f"<{len(numbers)}d", *numbers)
    if text.startswith("CURVE"):
        return struct.pack("<BII", 1, 10, 1) + struct.pack("<BI", 1, 8) + ring
    return struct.pack("<BII", 1, 12, 1) + struct.pack("<BII", 1, 3, 1) + ring


def run(path: Path, chance: random.Random) -> None:
    """Read it for some grid and image; now and then by the command line."""
    dice = chance.random()
    if dice < 0.03:
        command("info", path)
    elif dice < 0.06:
        command("convert", path, path.parent / "converted.csv", "--overwrite")
    else:
        read_layer(path, *chance.choice(FRAMES))


TARGET = Target("readers", make, run, left=("converted.csv", "converted.csv.ecodetect"))

if __name__ == "__main__":
    sys.exit(main(TARGET))
