"""What a file of features holds: known again however it was touched, and not once somebody has edited it."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from pyproj import CRS

from ecodetect.annotations.files import opened
from ecodetect.errors import LayerError, UserError
from ecodetect.formats import files as formats
from ecodetect.formats.gis import geojson
from ecodetect.formats.tables import table
from ecodetect.grid import Grid
from ecodetect.layer import Layer, Stream
from ecodetect.raster.finding import expand

GRID = Grid(100, 80, (0.5, 0.0, 5e5, 0.0, -0.5, 4e6), CRS.from_epsg(32630))
COLUMNS = {"id": "str", "label": "str", "score": "float", "area_m2": "float", "source": "str"}
SUFFIXES = [suffix for suffix in formats.suffixes(writing=True) if suffix not in (".geoparquet", ".tiff")]
METADATA = {"ecodetect": "0.1", "model": "m", "settings": {"score": 0.4}, "key": "k", "area_ha": None}


def boxes(n: int = 5) -> Layer:
    at = np.arange(n) * 15.0
    labels = np.array(["tree", "shrub"], dtype=object)[np.arange(n) % 2]
    columns = {
        "id": np.array([f"0123abcd-{k}" for k in range(n)], dtype=object),
        "label": labels,
        "score": np.where(at == 15, np.nan, 0.5 + at / 1000),
        "area_m2": np.full(n, np.nan),
        "source": np.full(n, "ortho.tif", dtype=object),
    }
    return Layer(shapely.box(at + 1, at / 2, at + 9, at / 2 + 7), columns, grid=GRID)


def write(path: Path, layer: Layer | None = None, **how: bool) -> formats.Written:
    layer = boxes() if layer is None else layer
    stream = Stream([layer], "Polygon", COLUMNS, GRID, classes=("shrub", "tree"), metadata=METADATA)
    return formats.write(path, stream, **how)


def edit(path: Path) -> None:
    """What a person may do: one class, one place."""
    suffix = path.suffix
    if suffix == ".gpkg":
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            for (name,) in database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'trigger'"
            ).fetchall():
                database.execute(f'DROP TRIGGER "{name}"')
            database.execute("UPDATE detections SET label = 'stone' WHERE fid = 2")
    elif suffix in (".fgb", ".shp", ".parquet"):
        at = path.with_suffix(".dbf") if suffix == ".shp" else path
        data = at.read_bytes()
        at.write_bytes(data.replace(b"shrub", b"stone", 1) if suffix != ".parquet" else data)
        if suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            table, facts = pq.read_table(path), pq.read_metadata(path).metadata
            column = pa.array(["stone", *table["label"].to_pylist()[1:]])
            table = table.set_column(table.column_names.index("label"), "label", column)
            pq.write_table(table.replace_schema_metadata(facts), path)
    elif suffix in (".tif", ".png"):
        from ecodetect.formats.labels.label_image import write_labels

        write_labels(path, np.ones((GRID.height, GRID.width), np.uint16), GRID)
    elif suffix == ".txt":
        path.write_text("\n".join(path.read_text().splitlines()[1:]) + "\n")
    else:
        path.write_text(path.read_text().replace("shrub", "stone", 1))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_was_written_is_known_and_what_was_edited_is_not(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write(path)
    held = formats.held_by(path)
    assert held.is_as_written
    assert held.tally is not None
    assert held.tally.of("ortho.tif", "0123abcdef") == {"tree": 3, "shrub": 2}
    assert formats.read_metadata(path) == METADATA
    edit(path)
    assert formats.held_by(path).is_edited


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_found_is_known_too(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write(path, boxes(0))
    assert formats.held_by(path).is_as_written


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_copy_under_another_name_says_the_same_where_the_format_can(tmp_path: Path, suffix: str) -> None:
    path, copy = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    write(path)
    for file in tmp_path.glob("a.*"):
        shutil.copy(file, tmp_path / file.name.replace("a.", "b.", 1))
    assert formats.held_by(copy).is_as_written


def test_a_geopackage_that_qgis_has_opened_is_as_it_was_written(tmp_path: Path) -> None:
    """What QGIS leaves: a write-ahead log, another date, a style, its metadata, an index built again."""
    path = tmp_path / "a.gpkg"
    write(path)
    before = path.read_bytes()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        with database:
            database.execute("UPDATE gpkg_contents SET last_change = '2026-11-30T00:00:00.000Z'")
            database.execute("UPDATE layer_styles SET styleQML = '<qgis/>', update_time = '2026-11-30'")
            database.execute(
                "INSERT INTO gpkg_metadata (md_scope, md_standard_uri, mime_type, metadata)"
                " VALUES ('dataset', 'http://mrcc.com/qgis.dtd', 'text/xml', '<qgis/>')"
            )
        with database:
            database.execute("DELETE FROM rtree_detections_geom")
    assert path.read_bytes() != before
    assert formats.held_by(path).is_as_written


def test_json_that_is_laid_out_anew_is_as_it_was_written(tmp_path: Path) -> None:
    for suffix, members in ((".geojson", "features"), (".json", "annotations")):
        path = tmp_path / f"a{suffix}"
        write(path)
        found = json.loads(path.read_text())
        random.Random(0).shuffle(found[members])
        path.write_text(json.dumps(found, indent=4))
        assert formats.held_by(path).is_as_written
    # GDAL, with which QGIS saves, keeps an id beside the properties only.
    found = json.loads((tmp_path / "a.geojson").read_text())
    for feature in found["features"]:
        del feature["properties"]["id"]
    (tmp_path / "a.geojson").write_text(json.dumps(found))
    assert formats.held_by(tmp_path / "a.geojson").is_as_written


@pytest.mark.parametrize("suffix", [".csv", ".xml", ".txt"])
def test_how_lines_end_does_not_matter(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write(path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert formats.held_by(path).is_as_written


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_edited_file_is_kept_beside_the_new_one_and_never_lost(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write(path)
    assert write(path, overwrite=True).notes == write(path, overwrite=True).notes
    assert not list(tmp_path.glob("*edited*"))
    contents = []
    for _ in range(2):
        edit(path)
        contents.append(path.read_bytes())
        (note,) = [note for note in write(path, overwrite=True).notes if note.code == "edits-kept"]
        assert note.about == path.name
        assert formats.held_by(path).is_as_written
    kept = [tmp_path / f"a.edited{suffix}", tmp_path / f"a.edited2{suffix}"]
    assert [file.read_bytes() for file in kept] == contents
    if suffix not in (".tif", ".png"):
        assert len(formats.read(kept[0], grid=GRID, image="ortho.tif")) >= 4


def test_what_does_not_say_what_it_is_is_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    path.write_text("somebody's work")
    write(path, overwrite=True, keep_unknown=True)
    assert (tmp_path / "a.edited.gpkg").read_text() == "somebody's work"
    write(path, overwrite=True, keep_unknown=True)
    assert len(list(tmp_path.glob("*edited*"))) == 1


def test_a_side_file_of_another_content_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write(path)
    assert formats.read_metadata(path) == METADATA
    edit(path)
    assert formats.read_metadata(path) == {}
    side = tmp_path / "a.csv.ecodetect"
    for damage in ("", "{", "[]", '{"ecodetect": {}}', '{"ecodetect": 3, "content": 3, "counts": 3}'):
        side.write_text(damage)
        assert formats.held_by(path) == formats.Held()


def test_side_files_are_taken_for_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "ortho.tif")  # a label image, with a side file
    write(tmp_path / "labels.txt")
    side = {path.name for path in tmp_path.glob("*.ecodetect")}
    assert side == {"ortho.tif.ecodetect", "labels.txt.ecodetect"}
    with pytest.raises(UserError, match="holds no raster"):
        expand([tmp_path])
    assert not any("ecodetect" in name for name in opened(tmp_path).names)


def test_edited_outputs_that_were_kept_are_taken_for_nothing_unasked(tmp_path: Path) -> None:
    for name in ("a.detections.tif", "a.detections.geojson"):
        for _ in range(2):
            write(tmp_path / name, overwrite=True)
            edit(tmp_path / name)
        write(tmp_path / name, overwrite=True)
        assert (tmp_path / name.replace(".tif", ".edited2.tif").replace(".geo", ".edited2.geo")).exists()
    with pytest.raises(UserError, match="holds no raster"):
        expand([tmp_path])
    assert not any("edited" in name for name in opened(tmp_path).names)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["box", "point"])
@pytest.mark.parametrize("place", ["world", "pixel"])
def test_what_was_written_is_read_in_pieces_as_it_is_read_whole(tmp_path, monkeypatch, suffix, kind, place):
    """Pictures are drawn from the pieces: places, labels and numbers, in the same order."""
    grid = GRID if place == "world" else Grid(100, 80)
    layer = replace(boxes(), grid=grid)
    layer.columns["label"][1] = "=1+1, a 'formula'\n"
    if kind == "point":
        layer = replace(layer, geometry=shapely.centroid(layer.geometry))
    path = tmp_path / f"out{suffix}"
    stream = Stream([layer], kind.replace("box", "polygon").title(), COLUMNS, grid, metadata=METADATA)
    try:
        formats.write(path, stream)
        whole = formats.read(path, grid=grid, image="ortho.tif")
    except LayerError as refused:
        pytest.skip(str(refused))
    monkeypatch.setattr(geojson, "PIECE", 2)
    monkeypatch.setattr(table, "PIECE", 2)
    pieces = list(formats.read_pieces(path, grid=grid, image="ortho.tif"))
    assert len(pieces) == (3 if suffix in (".csv", ".tsv", ".geojson", ".geojsonl", ".geojsons") else 1)
    geometry = np.concatenate([piece.in_pixels(grid) for piece in pieces])
    assert shapely.equals_exact(geometry, whole.in_pixels(grid)).all()
    for name in {"label", "score", "area_m2"} & set(whole.columns):
        found = np.concatenate([piece.columns[name] for piece in pieces])
        np.testing.assert_array_equal(found, whole.columns[name])
