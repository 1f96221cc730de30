"""Counts by polygon and cell: each individual once, on known ground, as a layer, a table and a raster."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from command_line import Run
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import from_origin

from ecodetect import count
from ecodetect.estimation.counting import Counts
from ecodetect.estimation.counts_files import write_layer, write_raster, write_table
from ecodetect.estimation.units_of_ground import holders
from ecodetect.formats.files import read
from ecodetect.scanning.files import scan_files
from ecodetect.scanning.settings import Settings

LEFT, TOP = 500_000, 4_100_000
# 100 m x 100 m; individuals in metres from the upper left corner.
PLACES = [(5, 5), (12, 5), (50, 50), (51, 50), (99, 99), (50, 20), (0, 0)]
LABELS = ["oak", "oak", "elm", "oak", "elm", "elm", "oak"]


@pytest.fixture
def raster(tmp_path: Path) -> Path:
    """100 m x 100 m in pixels of 1 m, the right fifth of it without data."""
    pixels = np.full((1, 100, 100), 9, np.uint8)
    pixels[:, :, 80:] = 0
    path = tmp_path / "ortho.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=100, height=100, count=1, dtype="uint8", crs="EPSG:32630", nodata=0,
        transform=from_origin(LEFT, TOP, 1, 1),
    ) as file:  # fmt: skip
        file.write(pixels)
    return path


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    points = [shapely.Point(LEFT + x, TOP - y) for x, y in PLACES]
    columns = {
        "label": LABELS,
        "diameter_m": [2.0, 4, 3, 3, 5, 5, 6],
        "source": ["a", "b", "a", "a", "b", "b", "a"],
    }
    path = tmp_path / "found.gpkg"
    geopandas.GeoDataFrame(columns, geometry=points, crs="EPSG:32630").to_file(path)
    return path


def halves(path: Path, *, crs: str = "EPSG:32630", overlap: float = 0.0) -> Path:
    """West and east, whose border runs through individuals."""
    west = shapely.box(LEFT - 10, TOP - 110, LEFT + 50, TOP + 10)
    east = shapely.box(LEFT + 50 - overlap, TOP - 110, LEFT + 110, TOP + 10)
    frame = geopandas.GeoDataFrame({"name": ["west", "east"]}, geometry=[west, east], crs="EPSG:32630")
    frame.to_crs(crs).to_file(path)
    return path


def codes(counts: Counts) -> set[str]:
    return {note.code for note in counts.notes}


def test_an_individual_on_a_border_counts_once(layer: Path, tmp_path: Path) -> None:
    found = count(layer, by=halves(tmp_path / "halves.gpkg"))
    assert found.names == ("west", "east")
    assert found.classes == ("elm", "oak")
    assert found.individuals.tolist() == [[0, 3], [3, 1]]
    assert (found.total, found.inside) == (7, 7)
    assert found.diameter[0, 1] == pytest.approx(4.0)
    assert np.isnan(found.diameter[0, 0])


@given(
    xy=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=20),
    cut=st.sampled_from(["squares", "triangles"]),
)
def test_polygons_that_share_borders_share_no_individual(xy: list[tuple[int, int]], cut: str) -> None:
    """Also where corners of four or eight meet."""
    squares = [shapely.box(x, y, x + 2, y + 2) for x in range(-2, 10, 2) for y in range(-2, 10, 2)]
    if cut == "triangles":
        squares = [
            shapely.Polygon([a, b, c])
            for square in squares
            for a, b, c in [
                np.array(square.exterior.coords)[[0, 1, 2]],
                np.array(square.exterior.coords)[[0, 2, 3]],
            ]
        ]
    places = np.array(xy, float)
    held = np.concatenate([place for place, _ in holders(np.array(squares, object), places)])
    assert sorted(held.tolist()) == list(range(len(places)))


def test_polygons_in_another_crs(layer: Path, tmp_path: Path) -> None:
    found = count(layer, by=halves(tmp_path / "halves.geojson", crs="EPSG:4326"))
    assert found.individuals.sum() == 7
    assert found.area.sum() == pytest.approx(1.44, rel=0.002)


def test_polygons_that_overlap_count_each_their_own(layer: Path, tmp_path: Path) -> None:
    found = count(layer, by=halves(tmp_path / "halves.gpkg", overlap=20))
    assert found.individuals.sum() == 7  # none lies in the strip
    assert "polygons-overlap" in codes(found)
    found = count(layer, by=halves(tmp_path / "more.gpkg", overlap=45))
    assert found.individuals.sum() == 9
    assert found.inside == 7


def test_the_share_searched_is_that_of_the_raster(layer: Path, raster: Path, tmp_path: Path) -> None:
    unknown = count(layer, by=halves(tmp_path / "halves.gpkg"))
    assert np.isnan(unknown.searched).all()
    assert "searched-unknown" in codes(unknown)
    found = count(layer, by=tmp_path / "halves.gpkg", images=[raster])
    assert found.searched == pytest.approx([50 / 60 * 100 / 120, 30 / 60 * 100 / 120], rel=1e-3)
    assert found.density[1].tolist() == pytest.approx([3 / 0.3, 1 / 0.3], rel=1e-3)
    assert "searched-unknown" not in codes(found)
    outlined = count(layer, by=tmp_path / "halves.gpkg", area=tmp_path / "halves.gpkg")
    assert outlined.searched == pytest.approx([1, 1])


def test_cells_begin_at_the_origin_and_hold_all_searched_ground(layer: Path, raster: Path) -> None:
    found = count(layer, grid="50m", images=[raster])
    assert found.cells is not None
    assert found.cells[0].tolist() == [LEFT // 50, TOP // 50 - 2]
    there = dict(
        zip(map(tuple, (found.cells - found.cells[0]).tolist()), found.individuals.sum(axis=1), strict=True)
    )
    # The lower left corner of a cell is its own: one on the upper edge lies in the next.
    assert there == {(0, 0): 0, (1, 0): 1, (0, 1): 2, (1, 1): 3, (0, 2): 1}
    share = dict(zip(map(tuple, (found.cells - found.cells[0]).tolist()), found.searched, strict=True))
    assert share == pytest.approx({(0, 0): 1, (1, 0): 0.6, (0, 1): 1, (1, 1): 0.6, (0, 2): 0}, rel=1e-3)


def test_only_cells_with_individuals_are_known_without_ground(layer: Path) -> None:
    found = count(layer, grid="10m")
    assert (found.individuals.sum(axis=1) > 0).all()
    assert found.individuals.sum() == 7


def test_cells_of_degrees_are_metres(layer: Path, tmp_path: Path) -> None:
    geopandas.read_file(layer).to_crs("EPSG:4326").to_file(tmp_path / "found.geojson")
    found = count(tmp_path / "found.geojson", grid="10m")
    assert found.plane.crs == geopandas.read_file(layer).crs
    assert found.individuals.sum() == 7


def test_without_a_crs_cells_are_of_pixels(tmp_path: Path) -> None:
    table = tmp_path / "cells.csv"
    table.write_text("source,x,y,label\na.png,10.5,10.5,cell\na.png,20.0,5.5,cell\na.png,19.9,5.5,cell\n")
    found = count(table, grid="10px")
    assert found.cells is not None
    assert found.cells.tolist() == [[1, 0], [2, 0], [1, 1]]
    assert found.density[0, 0] == pytest.approx(1e6 / 100)
    assert not found.has_metres


def test_files_say_the_same_as_the_result(layer: Path, raster: Path, tmp_path: Path) -> None:
    found = count(layer, grid="50m", images=[raster])
    for suffix in ("gpkg", "geojson", "fgb", "parquet"):
        write_layer(found, tmp_path / f"counts.{suffix}", overwrite=False)
        written = read(tmp_path / f"counts.{suffix}")
        order = np.argsort(written.columns["cell"])
        assert written.columns["cell"][order].tolist() == sorted(found.names)
        assert written.columns["individuals"].sum() == 7
        assert {"per_ha", "diameter_m", "area_ha", "searched", "individuals elm", "per_ha oak"} <= {
            *written.columns
        }
    write_table(found, tmp_path / "counts.csv", overwrite=False)
    with (tmp_path / "counts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["individuals"]) for row in rows) == 7
    assert sum(int(row["individuals"]) for row in rows if row["source"] == "a") == 4
    assert len(rows) == len(found.names) * 2 * 2
    write_raster(found, tmp_path / "density.tif", overwrite=False)
    with rasterio.open(tmp_path / "density.tif") as file:
        assert file.descriptions == ("elm", "oak")
        assert file.bounds.left == LEFT
        assert file.res == (50, 50)
        values = file.read()
    cell = found.side**2 / 1e4 if found.side else 0
    assert np.nansum(values[:, :, 0]) * cell == pytest.approx(found.individuals[[0, 2], :].sum())


def test_a_layer_opens_shaded_by_density(layer: Path, tmp_path: Path) -> None:
    write_layer(count(layer, grid="50m"), tmp_path / "counts.gpkg", overwrite=False)
    styles = geopandas.read_file(tmp_path / "counts.gpkg", layer="layer_styles")
    (qml,) = styles["styleQML"]
    assert 'type="graduatedSymbol"' in qml
    assert "per_ha" in qml
    assert "SimpleFill" in qml


def test_names_are_kept_whatever_the_case_of_their_column(layer: Path, tmp_path: Path) -> None:
    frame = geopandas.read_file(halves(tmp_path / "halves.gpkg")).rename(columns={"name": "NAME"})
    frame.to_file(tmp_path / "halves.shp")
    assert count(layer, by=tmp_path / "halves.shp").names == ("west", "east")


def test_what_a_scan_found_adds_up(tmp_path: Path, sample_data: Path) -> None:
    raster = tmp_path / "dryland.tif"
    raster.write_bytes((sample_data / "dryland.tif").read_bytes())
    (summary,), _ = scan_files([raster], Settings(model="threshold"), str(tmp_path / "found.gpkg"))
    found = count(tmp_path / "found.gpkg", grid="20m")
    assert found.individuals.sum() == summary.total
    assert float(found.searched_area.sum()) == pytest.approx(summary.area_ha, rel=1e-3)
    again = count(tmp_path / "found.gpkg", grid="20m")
    assert again.rows == found.rows


BAD = {
    "neither polygons nor a grid": ((), "by polygons or in a grid; give one"),
    "both": (("--grid", "10m", "--by", "{halves}"), "by polygons or in a grid; give one"),
    "a side of 0": (("--grid", "0m"), "must be above 0"),
    "pixels on a map": (("--grid", "5px"), "in metres, such as 50m"),
    "no length": (("--grid", "wide"), "must be a length with a unit"),
    "cells beyond number": (("--grid", "1cm", "--area", "{halves}"), "take larger"),
    "no polygons": (("--by", "{layer}"), "has no polygon"),
    "no such file": (("--by", "nowhere.gpkg"), "doesn't exist"),
    "a raster of polygons": (("--by", "{halves}", "--density", "{folder}/d.tif"), "square cells of --grid"),
    "a table that is none": (("--grid", "50m", "--table", "{folder}/t.gpkg"), "ends in .csv"),
    "a layer that holds no map": (("--grid", "50m", "-o", "{folder}/t.csv"), "can't hold polygons"),
    "one name twice": (
        ("--grid", "50m", "-o", "{folder}/t.gpkg", "--table", "{folder}/no/t.csv"),
        "no folder",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_writes_nothing(
    case: str, layer: Path, tmp_path: Path, ecodetect: Run
) -> None:
    given_, says = BAD[case]
    names = {"halves": halves(tmp_path / "halves.gpkg"), "layer": layer, "folder": tmp_path}
    before = sorted(tmp_path.iterdir())
    outcome = ecodetect("count", layer, *(word.format(**names) for word in given_))
    assert outcome.code == 2
    lines = [line for line in outcome.err.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1
    assert says in lines[0]
    assert sorted(tmp_path.iterdir()) == before


def test_the_command_tells_what_it_wrote(layer: Path, raster: Path, tmp_path: Path, ecodetect: Run) -> None:
    by = halves(tmp_path / "halves.gpkg")
    said = ecodetect("count", layer, "--by", by, "--image", raster, "--table", tmp_path / "t.csv")
    assert said.code == 0
    assert "7 of 7 individuals in 2 polygons" in said.out
    assert "west: elm 0" in said.out
    assert (tmp_path / "found.counts.gpkg").exists()
    assert ecodetect("count", layer, "--by", by).code == 2  # it is there
    told = json.loads(ecodetect("count", layer, "--by", by, "--overwrite", "--json").out)
    assert told["units"][1]["individuals"] == {"elm": 3, "oak": 1}
    assert [note["code"] for note in told["notes"]] == ["searched-unknown"]
