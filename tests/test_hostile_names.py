"""Names, labels and arguments that would steer a terminal, a spreadsheet or an XML reader."""

from __future__ import annotations

import csv
import json
import os
import sys
import unicodedata
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from command_line import Run
from rasterio.transform import from_origin

from ecodetect.converting import convert
from ecodetect.formats import files as formats
from ecodetect.raster.reading import open_raster

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b5m\x7f\u202ex\u2066\u200b\u2028\u2029\x85"
LABELS = [
    f"oak{EVIL}\nnote: all is well",
    "=HYPERLINK(\"http://a\")", "-1", "@SUM(A1)", "'=1", "＝1", "a;=1", "\t+1",
    "<script>alert(1)</script>", "]]>", "a\0b", "../../up", "CON", "x" * 3000, "\ud800",
]  # fmt: skip
NAME = f"ortho{EVIL}\n<b>.tif"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A raster and points in files, bands and classes of such names; the working folder."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(170, 190, (1, 120, 120)).astype(np.uint8)
    pixels[0, 20:30, 20:30] = pixels[0, 60:70, 80:90] = 30
    with rasterio.open(
        tmp_path / NAME, "w", driver="GTiff", width=120, height=120, count=1, dtype="uint8",
        crs="EPSG:32630", transform=from_origin(500_000, 4_100_000, 0.1, 0.1),
    ) as file:  # fmt: skip
        file.write(pixels)
        file.set_band_description(1, EVIL)
        file.update_tags(TIFFTAG_SOFTWARE=EVIL)
    with open_raster(tmp_path / NAME) as raster:
        places = np.linspace(5, 115, len(LABELS))
        lonlat = raster.grid.to_lonlat(np.stack([places, places], axis=1)).tolist()
    points = [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": place},
            "properties": {"label": label, "score": 0.5, EVIL: "=1"},
        }
        for place, label in zip(lonlat, LABELS, strict=True)
    ]
    collection = {"type": "FeatureCollection", "features": points}
    (tmp_path / f"points{EVIL}.geojson").write_text(json.dumps(collection), encoding="ascii")
    return tmp_path


def check_harmless(text: str) -> None:
    """Nothing but characters that are to be seen, in lines."""
    for char in text:
        is_seen = unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
        assert char == "\n" or is_seen, repr(char)


POINTS = f"points{EVIL}.geojson"
CALLS: list[list[str]] = [
    ["scan", NAME, "-m", "threshold", "-o", f"out{EVIL}.geojson"],
    ["scan", NAME, "-m", "threshold", "--dry-run"],
    ["scan", NAME, "-m", "threshold", "-o", "a.csv", "--json"],
    ["scan", NAME, "-m", EVIL],
    ["scan", NAME, "-m", "threshold", "--bands", EVIL],
    ["scan", NAME, "-m", "threshold", "--set", f"{EVIL}=1"],
    ["scan", NAME, "-m", "threshold", "--score", EVIL],
    ["scan", NAME, "-m", "threshold", "-o", f"out.{EVIL}"],
    ["scan", f"none{EVIL}\n.tif", "-m", "threshold"],
    ["scan", os.fsdecode(b"\xff\x1b.tif"), "-m", "threshold"],
    ["scan", f"http://127.0.0.1:1/{EVIL}.tif", "-m", "threshold"],
    ["scan", f"/vsizip/{EVIL}.zip/a.tif", "-m", "threshold"],
    ["candidates", NAME, "-o", "patches.geojson"],
    ["check", NAME, POINTS],
    ["check", NAME, POINTS, "--json"],
    ["check", NAME, POINTS, "--class-column", EVIL],
    ["train", NAME, POINTS, "-m", EVIL, "-o", "m.safetensors"],
    ["train", NAME, POINTS, "--split", EVIL, "-o", "m.safetensors"],
    ["evaluate", POINTS, POINTS, "--image", NAME, "--within", "1m"],
    ["evaluate", POINTS, POINTS, "--image", NAME, "--within", "1m", "--json"],
    ["evaluate", POINTS, POINTS, "--image", NAME, "--within", EVIL],
    ["classify", POINTS, NAME, "-m", EVIL, "-o", "c.gpkg"],
    ["explain", NAME, "-m", EVIL, "--at", "1,1", "-o", "e.png"],
    ["convert", POINTS, f"b{EVIL}.csv", "--image", NAME],
    ["convert", NAME, "b.geojson"],
    ["export", EVIL, "-o", "m.onnx"],
    ["info", NAME],
    ["info", NAME, "--json"],
    ["info", POINTS],
    ["info", POINTS, "--json"],
    ["models", EVIL],
    [EVIL],
    ["scan", f"--{EVIL}"],
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0] if call[0].isprintable() else "none")
def test_no_command_prints_what_steers_a_terminal(ecodetect: Run, folder: Path, call: list[str]) -> None:
    ran = ecodetect(*call)
    check_harmless(ran.out)
    check_harmless(ran.err)
    assert "internal" not in ran.err
    assert "Traceback" not in ran.err
    assert not any(line.startswith("note: all is well") for line in (ran.out + ran.err).splitlines())
    if "--json" in call and ran.code == 0:
        json.loads(ran.out)


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_tables_hold_no_formula_and_give_labels_back(folder: Path, suffix: str) -> None:
    out = folder / f"out{suffix}"
    convert(folder / POINTS, out, image=folder / NAME)
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t" if suffix == ".tsv" else ","))
    numbers = [rows[0].index(name) for name in ("x", "y", "lon", "lat", "score")]
    for row in rows:
        for position, cell in enumerate(row):
            if position not in numbers or row is rows[0]:
                assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "＝"))
    assert float(rows[1][rows[0].index("lon")]) < 0  # a number is one
    with open_raster(folder / NAME) as raster:
        back = formats.read(out, grid=raster.grid)
    expected = {"\t+1", *(label for label in LABELS if label.isprintable())}
    assert expected <= set(back.columns["label"])


@pytest.mark.parametrize("suffix", [".kml", ".xml", ".gpkg", ".shp", ".fgb", ".json", ".txt", ".geojson"])
def test_every_format_holds_such_labels_or_refuses(folder: Path, suffix: str, ecodetect: Run) -> None:
    """Well-formed, in its own place only, and read again."""
    before = {path.name for path in folder.parent.iterdir()}
    ran = ecodetect("convert", POINTS, f"out{suffix}", "--image", NAME)
    check_harmless(ran.err)
    assert "internal" not in ran.err
    assert {path.name for path in folder.parent.iterdir()} == before
    if ran.code == 0:
        if suffix in (".kml", ".xml"):
            ElementTree.parse(folder / f"out{suffix}")
        for style in folder.glob("*.qml"):
            ElementTree.parse(style)
        assert ecodetect("info", f"out{suffix}").code == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there no file has such a name")
def test_a_picture_of_any_name_has_a_result_beside_it(folder: Path, ecodetect: Run) -> None:
    long = "n" * 250 + ".tif"
    (folder / NAME).rename(folder / long)
    ran = ecodetect("scan", long, "-m", "threshold")
    assert "internal" not in ran.err
    assert ran.err.count("\n") <= 1
