"""Plots drawn on a scan's ground, checked, and estimated: by Python and by the command line."""

from __future__ import annotations

import json
import shutil
import sqlite3
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from command_line import Run
from little_scene import write_scene

import ecodetect
from ecodetect.estimation.plots_reading import read_plots
from ecodetect.formats import files as formats
from ecodetect.sizes import Length

SIDE_PX = 260
SCENE = {"side": SIDE_PX, "spots": 60}
CELLS = 13 * 13  # of 2 m in 26 m


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a scene and what `threshold` found in it."""
    folder = tmp_path_factory.mktemp("scanned")
    write_scene(folder / "scene.tif", **SCENE)
    scan(folder / "scene.tif", folder / "found.gpkg")
    ecodetect.plots(folder / "found.gpkg", folder / "drawn.gpkg", n=20, size="2m", within=Length(0.3, "m"))
    return folder


def scan(image: Path, out: Path) -> None:
    asked = ecodetect.Settings(model="threshold", options={"min_area": "10px"})
    ecodetect.scan_files([image], asked, str(out))


@pytest.fixture
def ground(scanned: Path, tmp_path: Path) -> Path:
    """The scene and the scan in a folder of its own."""
    for name in ("scene.tif", "found.gpkg"):
        shutil.copy(scanned / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def plots(scanned: Path, ground: Path) -> Path:
    """Twenty plots of 2 m beside it, none of them checked."""
    return Path(shutil.copy(scanned / "drawn.gpkg", ground / "found.plots.gpkg"))


def sql(path: Path, *statements: str) -> list[Any]:
    with sqlite3.connect(path) as database:
        add_functions(database)
        found = [database.execute(each).fetchall() for each in statements]
    database.close()
    return found[-1]


def add_functions(database: sqlite3.Connection) -> None:
    """What the triggers of a GeoPackage call to keep its index of places."""

    def side(blob: bytes, number: int) -> float:
        head = 8 + (0, 32, 48, 48, 64)[blob[3] >> 1 & 7]
        return float(shapely.from_wkb(blob[head:]).bounds[number])

    database.create_function("ST_IsEmpty", 1, lambda _: 0)
    for number, name in enumerate(("ST_MinX", "ST_MinY", "ST_MaxX", "ST_MaxY")):
        database.create_function(name, 1, lambda blob, number=number: side(blob, number))


def check_all(path: Path) -> None:
    sql(path, "UPDATE plots SET state = 'done', checker = 'Ann'")


def add(path: Path, xy: list[tuple[float, float]], **columns: Any) -> None:
    """Individuals added by hand."""
    values = {"id": None, "label": "object", "verdict": "right", **columns}
    made = geopandas.GeoDataFrame(
        {name: [value] * len(xy) for name, value in values.items()}, geometry=shapely.points(xy), crs=32630
    )
    pyogrio.write_dataframe(made, path, layer="individuals", append=True)


def truth(found: Path) -> geopandas.GeoDataFrame:
    layer = pyogrio.read_dataframe(found, layer="detections")
    return layer.set_geometry(layer.geometry.centroid)


# -- drawing -----------------------------------------------------------------------------------------------


def test_the_frame_is_the_searched_ground_with_all_detections(ground: Path) -> None:
    done = ecodetect.plots(ground / "found.gpkg", n=20, size="2m")
    found = len(formats.read(ground / "found.gpkg"))
    assert done.plots == 20
    assert done.cells == CELLS
    assert done.hectares == pytest.approx(0.0676, rel=2e-3)
    assert sum(each.detections for each in done.strata) == found == done.detections["object"]
    assert sum(each.plots for each in done.strata) == 20
    assert all(each.plots >= min(3, each.cells) for each in done.strata)
    with pytest.raises(FrozenInstanceError):
        done.plots = 3  # type: ignore[misc]


def test_the_same_draw_gives_the_same_bytes(ground: Path, tmp_path: Path) -> None:
    made = []
    other = tmp_path / "elsewhere"
    other.mkdir()
    for name in ("scene.tif", "found.gpkg"):
        shutil.copy(ground / name, other / name)
    for folder in (ground, other):
        ecodetect.plots(folder / "found.gpkg", folder / "p.gpkg", n=15, size="2m", seed=3)
        made.append((folder / "p.gpkg").read_bytes())
    assert made[0] == made[1]
    assert b"elsewhere" not in made[1]


def test_reordered_detections_give_the_same_plots(ground: Path) -> None:
    layer = pyogrio.read_dataframe(ground / "found.gpkg", layer="detections")
    layer.iloc[::-1].to_file(ground / "turned.gpkg", layer="detections")
    draws = []
    for name in ("found", "turned"):
        done = ecodetect.plots(
            ground / f"{name}.gpkg", ground / f"{name}.p.gpkg", n=15, size="2m", image=[ground / "scene.tif"]
        )
        assert done.path is not None
        record = read_plots(done.path).record
        draws.append([(each.cell, each.detections) for each in record.plots])
    assert draws[0] == draws[1]


def test_as_many_plots_as_cells_are_a_census(ground: Path) -> None:
    done = ecodetect.plots(ground / "found.gpkg", n=500, size="4m")
    assert done.path is not None
    assert done.plots == done.cells < 60
    check_all(done.path)
    number = ecodetect.estimate(done.path).together.individuals
    assert number is not None
    assert number.low == number.value == number.high


def test_ground_on_which_nothing_was_found_can_be_surveyed(ecodetect: Run, ground: Path) -> None:
    sql(ground / "found.gpkg", "DELETE FROM detections")
    refused(ecodetect, ground, "name the class to count (--class)", "plots", ground / "found.gpkg", "-n", 10)
    done = ecodetect("plots", ground / "found.gpkg", "-n", 10, "--size", "2m", "--class", "seal")
    assert done.code == 0, done.err
    path = ground / "found.plots.gpkg"
    check_all(path)
    middle = pyogrio.read_dataframe(path, layer="plots").geometry[0].centroid
    add(path, [(middle.x, middle.y)], label="seal")
    done = ecodetect("estimate", path)
    assert done.code == 0, done.err
    assert f"seal: {CELLS / 10:.0f} individuals" in done.out


def test_more_plots_go_on_with_the_draw_and_touch_nothing_checked(ground: Path, plots: Path) -> None:
    sql(plots, "UPDATE plots SET state = 'done', note = 'mine' WHERE plot < 6")
    before = sql(plots, "SELECT plot, cell, state, note, geom FROM plots ORDER BY plot")
    done = ecodetect.more_plots(plots, 10)
    assert (done.plots, done.added) == (30, 10)
    assert (
        sql(plots, "SELECT plot, cell, state, note, geom FROM plots WHERE plot < 21 ORDER BY plot") == before
    )
    whole = ecodetect.plots(ground / "found.gpkg", ground / "whole.gpkg", n=20, size="2m")
    assert whole.path is not None
    ids = "SELECT id FROM individuals WHERE id IS NOT NULL"
    there = [each for (each,) in sql(plots, ids)]
    assert len(there) == len(set(there))
    record = read_plots(plots).record
    assert record.rounds == (20, 30)


def test_fields_that_somebody_added_or_removed_are_no_hindrance(plots: Path) -> None:
    sql(plots, "ALTER TABLE plots ADD COLUMN weather TEXT", "ALTER TABLE plots DROP COLUMN note")
    sql(plots, "UPDATE plots SET weather = 'fair'")
    ecodetect.more_plots(plots, 5)
    assert sql(plots, "SELECT count(*), sum(weather = 'fair') FROM plots") == [(25, 20)]
    check_all(plots)
    assert len(ecodetect.estimate(plots).used) == 25


def test_a_view_in_the_place_of_the_draw_isnt_read(ecodetect: Run, ground: Path, plots: Path) -> None:
    endless = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS id, i AS json FROM n"
    )
    sql(plots, "DROP TABLE ecodetect_draw", f"CREATE VIEW ecodetect_draw AS {endless}")
    refused(ecodetect, ground, "has no table ecodetect_draw", "estimate", plots)


def test_plots_added_to_blind_ones_are_blind(ground: Path) -> None:
    done = ecodetect.plots(ground / "found.gpkg", n=20, size="2m", blind=None)
    assert done.path is not None
    ecodetect.more_plots(done.path, 5)
    assert sql(done.path, "SELECT count(*) FROM individuals") == [(0,)]


def test_blind_plots_show_no_detection(ground: Path) -> None:
    done = ecodetect.plots(ground / "found.gpkg", n=20, size="2m", blind=8)
    assert done.path is not None
    assert sql(done.path, "SELECT count(*) FROM individuals WHERE plot < 9") == [(0,)]
    assert sql(done.path, "SELECT DISTINCT detections FROM plots WHERE plot < 9") == [(None,)]
    assert sql(done.path, "SELECT count(*) FROM individuals WHERE plot > 8")[0][0] > 0


def test_plots_are_clipped_to_searched_ground(ground: Path) -> None:
    """Half of the raster has no data, so that its border cuts a column of cells."""
    with rasterio.open(ground / "scene.tif") as file:
        pixels, profile = file.read(), file.profile
    pixels[:, :, 125:] = 0
    with rasterio.open(ground / "half.tif", "w", **{**profile, "nodata": 0}) as file:
        file.write(pixels)
    scan(ground / "half.tif", ground / "half.gpkg")
    done = ecodetect.plots(ground / "half.gpkg", n=30, size="1.5m")
    assert done.path is not None
    assert done.hectares == pytest.approx(12.5 * 26 / 10_000, rel=2e-3)
    outlines = pyogrio.read_dataframe(done.path, layer="plots").geometry
    assert outlines.total_bounds[2] <= 500_012.5 + 1e-6


def test_each_polygon_gets_plots_of_its_own(ground: Path) -> None:
    halves = [
        shapely.box(500_000, 4_099_974, 500_013, 4_100_000),
        shapely.box(500_013, 4_099_974, 500_026, 4_100_000),
    ]
    made = geopandas.GeoDataFrame({"name": ["west", "east"]}, geometry=halves, crs=32630)
    made.to_file(ground / "halves.gpkg")
    done = ecodetect.plots(ground / "found.gpkg", n=24, size="2m", strata_by=ground / "halves.gpkg")
    assert done.path is not None
    by_name = {
        name: sum(e.plots for e in done.strata if e.name.startswith(name)) for name in ("west", "east")
    }
    assert min(by_name.values()) >= 6
    check_all(done.path)
    found = ecodetect.estimate(done.path, by=ground / "halves.gpkg")
    west, east = found.together.polygons
    assert west.interval is not None
    assert east.interval is not None
    assert found.together.individuals is not None
    assert west.interval.value + east.interval.value == pytest.approx(found.together.individuals.value)


def test_without_the_raster_an_area_says_what_was_searched(ground: Path) -> None:
    (ground / "scene.tif").unlink()
    area = geopandas.GeoDataFrame(geometry=[shapely.box(500_000, 4_099_974, 500_026, 4_100_000)], crs=32630)
    area.to_crs(4326).to_file(ground / "area.geojson")
    done = ecodetect.plots(ground / "found.gpkg", n=20, size="2m", area=ground / "area.geojson")
    assert done.hectares == pytest.approx(0.0676, rel=2e-3)


def test_a_scan_of_a_part_needs_its_outline(ecodetect: Run, ground: Path) -> None:
    area = geopandas.GeoDataFrame(geometry=[shapely.box(500_000, 4_099_974, 500_013, 4_100_000)], crs=32630)
    area.to_file(ground / "west.gpkg")
    ecodetect(
        "scan",
        ground / "scene.tif",
        "-m",
        "threshold",
        "--aoi",
        ground / "west.gpkg",
        "-o",
        ground / "w.gpkg",
    )
    failed = ecodetect("plots", ground / "w.gpkg", "-n", 10, "--size", "2m")
    assert failed.code == 2
    assert "Only 0.03383 of 0.06765 ha of scene.tif were searched" in failed.err
    done = ecodetect("plots", ground / "w.gpkg", "-n", 10, "--size", "2m", "--area", ground / "west.gpkg")
    assert done.code == 0, done.err
    assert "0.03383 ha" in done.out


def test_a_raster_in_degrees_gets_cells_of_metres_in_its_utm_zone(ground: Path) -> None:
    with rasterio.open(ground / "scene.tif") as file:
        pixels, profile = file.read(), file.profile
    step = 0.1 / 111_000
    place = rasterio.transform.from_origin(-3.0, 37.0, step, step)
    with rasterio.open(ground / "lonlat.tif", "w", **{**profile, "crs": 4326, "transform": place}) as file:
        file.write(pixels)
    scan(ground / "lonlat.tif", ground / "lonlat.geojson")
    done = ecodetect.plots(ground / "lonlat.geojson", n=15, size="2m")
    assert done.path is not None
    assert "UTM zone 30N" in str(read_plots(done.path).record.crs)
    outlines = pyogrio.read_dataframe(done.path, layer="plots")
    assert outlines.crs.to_epsg() == 32630
    assert outlines.area.max() == pytest.approx(4, rel=1e-6)
    assert done.hectares == pytest.approx(0.0676 * np.cos(np.radians(37)), rel=0.01)


def test_a_picture_without_a_place_has_cells_of_pixels(ground: Path) -> None:
    with rasterio.open(ground / "scene.tif") as file:
        pixels = file.read()
    with rasterio.open(
        ground / "bare.png", "w", driver="PNG", width=SIDE_PX, height=SIDE_PX, count=3, dtype="uint8"
    ) as f:
        f.write(pixels)
    scan(ground / "bare.png", ground / "bare.gpkg")
    done = ecodetect.plots(ground / "bare.gpkg", n=15, size="20px")
    assert done.path is not None
    assert (done.cells, done.hectares) == (CELLS, None)
    outlines = pyogrio.read_dataframe(done.path, layer="plots").geometry
    assert outlines.total_bounds[1] < 0  # as QGIS lays such a picture
    check_all(done.path)
    found = ecodetect.estimate(done.path).together
    assert found.individuals is not None
    assert found.individuals.value == found.detections
    assert found.per_hectare is None


def test_with_images_as_cells_each_raster_is_one(tmp_path: Path) -> None:
    for number in range(30):
        path = write_scene(tmp_path / f"s{number:02}.tif", seed=number, side=60, spots=number % 4)
        with rasterio.open(path, "r+") as file:
            file.transform = rasterio.transform.from_origin(500_000 + 10 * number, 4_100_000, 0.1, 0.1)
    asked = ecodetect.Settings(model="threshold")
    ecodetect.scan_files(sorted(tmp_path.glob("s*.tif")), asked, str(tmp_path / "all.gpkg"))
    done = ecodetect.plots(tmp_path / "all.gpkg", n=10, size="image")
    assert (done.cells, done.size) == (30, "one image")


def test_ground_under_two_rasters_is_there_once(ground: Path) -> None:
    with rasterio.open(ground / "scene.tif") as file:
        pixels, profile = file.read(), file.profile
    for name, left in (("a", 0), ("b", 60)):
        part = pixels[:, :, left : left + 200]
        place = rasterio.transform.from_origin(500_000 + left / 10, 4_100_000, 0.1, 0.1)
        with rasterio.open(ground / f"{name}.tif", "w", **{**profile, "width": 200, "transform": place}) as f:
            f.write(part)
    asked = ecodetect.Settings(model="threshold", options={"min_area": "10px"})
    ecodetect.scan_files([ground / "a.tif", ground / "b.tif"], asked, str(ground / "two.gpkg"))
    done = ecodetect.plots(ground / "two.gpkg", n=20, size="2m")
    assert done.cells == CELLS
    assert done.hectares == pytest.approx(0.0676, rel=2e-3)
    assert sum(each.detections for each in done.strata) == len(formats.read(ground / "two.gpkg"))
    with pytest.raises(ecodetect.UserError, match="rasters overlap"):
        ecodetect.plots(ground / "two.gpkg", ground / "x.gpkg", n=20, size="image")


# -- estimating --------------------------------------------------------------------------------------------


def test_what_stays_unchecked_in_a_done_plot_is_right(plots: Path) -> None:
    check_all(plots)
    found = ecodetect.estimate(plots).together
    assert found.individuals is not None
    assert found.individuals.value == found.detections
    assert found.precision is not None
    assert found.precision.interval.value == 1
    assert found.recall is not None
    assert found.recall.value == 1


def test_deleted_false_added_and_moved_individuals_are_numbers_of_plots(plots: Path) -> None:
    check_all(plots)
    ids = [each for (each,) in sql(plots, "SELECT id FROM individuals WHERE plot IS NOT NULL ORDER BY id")]
    sql(plots, f"UPDATE individuals SET verdict = 'false' WHERE id = '{ids[0]}'")
    sql(plots, f"DELETE FROM individuals WHERE id = '{ids[1]}'")
    outline = pyogrio.read_dataframe(plots, layer="plots").set_index("plot").geometry[1]
    add(plots, [(outline.centroid.x, outline.centroid.y)])
    found = ecodetect.estimate(plots)
    rows = [row.counts["object"] for row in found.plots]
    y, x, missed, false = np.sum(rows, axis=0)
    assert (x - y, missed, false) == (1, 1, 2)
    assert found.plots[0].counts["object"][2] == 1
    assert found.checkers == ("Ann",)


def test_a_detection_moved_to_another_plot_changes_no_x(plots: Path) -> None:
    check_all(plots)
    before = [row.counts["object"][1] for row in ecodetect.estimate(plots).plots]
    layer = pyogrio.read_dataframe(plots, layer="individuals")
    other = pyogrio.read_dataframe(plots, layer="plots").set_index("plot").geometry
    row = layer.index[layer["plot"].notna() & (layer["plot"] != 1)][0]
    layer.loc[row, "geometry"] = other[1].centroid
    layer.to_file(plots, layer="individuals")
    rows = ecodetect.estimate(plots).plots
    assert [each.counts["object"][1] for each in rows] == before
    assert rows[0].counts["object"][0] == before[0] + 1


def test_plots_behind_a_gap_in_their_stratum_are_set_aside(plots: Path) -> None:
    strata = [each for (each,) in sql(plots, "SELECT stratum FROM plots ORDER BY plot")]
    of_first = [number for number, name in enumerate(strata, 1) if name == strata[0]]
    check_all(plots)
    sql(plots, f"UPDATE plots SET state = 'to do' WHERE plot = {of_first[2]}")
    found = ecodetect.estimate(plots)
    assert found.set_aside == tuple(of_first[3:])
    assert found.next == (of_first[2],)
    assert "plots-set-aside" in {note.code for note in found.notes}


def test_an_unusable_plot_is_passed_over(plots: Path) -> None:
    check_all(plots)
    sql(plots, "UPDATE plots SET state = 'unusable' WHERE plot IN (1, 6, 7)")
    found = ecodetect.estimate(plots)
    assert found.unusable == (1, 6, 7)
    assert len(found.used) == 17
    assert "plots-unusable" in {note.code for note in found.notes}


def test_too_few_plots_have_no_interval_but_counts(ecodetect: Run, plots: Path) -> None:
    sql(plots, "UPDATE plots SET state = 'done' WHERE plot < 8")
    done = ecodetect("estimate", plots)
    assert done.code == 0
    assert "too few plots for an interval: 7 of at least 10" in done.out
    assert "check 8, 9" in done.out
    assert json.loads(ecodetect("estimate", plots, "--json").out)["classes"][0]["individuals"] is None


def test_unsure_individuals_count_and_a_second_number_is_without_them(plots: Path) -> None:
    check_all(plots)
    sql(plots, "UPDATE individuals SET verdict = 'unsure'")
    found = ecodetect.estimate(plots)
    each = found.together
    assert each.individuals is not None
    assert each.if_false is not None
    assert each.if_false.value < each.individuals.value == each.detections
    assert "individuals-unsure" in {note.code for note in found.notes}


def test_counts_in_the_plots_are_taken_for_individuals(plots: Path) -> None:
    sql(plots, 'ALTER TABLE plots ADD COLUMN "count_object" INTEGER')
    sql(plots, "UPDATE plots SET state = 'done', count_object = 3")
    found = ecodetect.estimate(plots).together
    assert found.counted == 60
    assert found.precision is None
    assert found.recall is None


def test_individuals_from_another_program_are_matched_by_place(ground: Path, plots: Path) -> None:
    marked = truth(ground / "found.gpkg")
    marked[["geometry"]].to_crs(4326).to_file(ground / "marked.geojson")
    found = ecodetect.estimate(plots, checked=ground / "marked.geojson", scan=ground / "found.gpkg")
    each = found.together
    assert each.individuals is not None
    assert each.individuals.value == each.detections
    assert each.precision is not None
    assert each.precision.interval.value == 1
    fewer = ecodetect.estimate(plots, checked=ground / "marked.geojson", not_done=[20])
    assert fewer.used == tuple(range(1, 20))


def test_a_second_person_widens_the_interval(ground: Path, plots: Path) -> None:
    check_all(plots)
    alone = ecodetect.estimate(plots).together.individuals
    marked = truth(ground / "found.gpkg")[["geometry"]]
    extra = [shape.centroid for shape in pyogrio.read_dataframe(plots, layer="plots").geometry[:3]]
    geopandas.GeoDataFrame(geometry=[*marked.geometry, *extra], crs=32630).to_file(ground / "second.gpkg")
    found = ecodetect.estimate(plots, second=ground / "second.gpkg")
    both = found.together.individuals
    assert found.observers is not None
    assert alone is not None
    assert both is not None
    assert found.observers.seen.value < 1
    assert both.value == pytest.approx(alone.value / found.observers.seen.value)
    assert both.high / both.value > alone.high / alone.value


def test_a_second_person_may_mark_in_a_copy_of_the_file(ground: Path, plots: Path) -> None:
    copy = Path(shutil.copy(plots, ground / "ben.plots.gpkg"))
    check_all(plots)
    sql(copy, "DELETE FROM individuals WHERE plot IN (1, 2)", "UPDATE individuals SET verdict = 'right'")
    found = ecodetect.estimate(plots, second=copy)
    assert found.observers is not None
    assert found.observers.seen.value == 1  # all that the second one marked, the first one has too


@pytest.fixture
def two_classes(ground: Path) -> Path:
    """Plots of a scan of two classes."""
    sql(
        ground / "found.gpkg",
        "UPDATE detections SET label = CASE WHEN fid % 3 = 0 THEN 'palm' ELSE 'tree' END",
    )
    done = ecodetect.plots(ground / "found.gpkg", n=20, size="2m")
    assert done.path is not None
    assert set(done.detections) == {"palm", "tree"}
    check_all(done.path)
    return done.path


def test_classes_add_up(two_classes: Path) -> None:
    found = ecodetect.estimate(two_classes)
    totals = [each.abundance.total for each in found.classes if each.abundance is not None]
    assert found.together.abundance is not None
    assert sum(totals) == pytest.approx(found.together.abundance.total)
    assert found.together.name == "all"


def test_a_wrong_class_is_one_false_and_one_missed_but_right_of_all(two_classes: Path) -> None:
    ids = sql(two_classes, "SELECT id FROM individuals WHERE plot IS NOT NULL AND label = 'palm' ORDER BY id")
    sql(two_classes, f"UPDATE individuals SET label = 'tree', verdict = 'right' WHERE id = '{ids[0][0]}'")
    found = ecodetect.estimate(two_classes)
    by_name = {each.name: each for each in found.every}
    palm, tree = (np.sum([row.counts[name] for row in found.plots], axis=0) for name in ("palm", "tree"))
    assert (palm[2], palm[3]) == (0, 1)
    assert (tree[2], tree[3]) == (1, 0)
    together = by_name["all"].precision
    assert together is not None
    assert together.interval.value == 1


def test_classes_of_another_program_are_found_by_their_column(ground: Path, two_classes: Path) -> None:
    marked = truth(ground / "found.gpkg").rename(columns={"label": "species"})
    marked[["species", "geometry"]].to_file(ground / "marked.gpkg")
    found = ecodetect.estimate(two_classes, checked=ground / "marked.gpkg")
    for each in found.every:
        assert each.individuals is not None
        assert each.individuals.value == each.detections


def test_marks_of_one_class_under_another_name_are_that_class(ground: Path, plots: Path) -> None:
    marked = truth(ground / "found.gpkg")
    marked["label"] = "shrub"
    marked[["label", "geometry"]].to_file(ground / "marked.gpkg")
    found = ecodetect.estimate(plots, checked=ground / "marked.gpkg")
    assert found.together.individuals is not None
    assert found.together.individuals.value == found.together.detections
    assert "classes-not-compared" in {note.code for note in found.notes}


def test_another_programs_detections_need_their_raster(ecodetect: Run, ground: Path) -> None:
    truth(ground / "found.gpkg")[["geometry"]].to_file(ground / "theirs.gpkg")
    refused(ecodetect, ground, "doesn't say which ground was searched", "plots", ground / "theirs.gpkg")
    done = ecodetect("plots", ground / "theirs.gpkg", "--image", ground / "scene.tif", "--size", "1m")
    assert done.code == 0, done.err


def test_hidden_individuals_are_added_by_a_share_from_elsewhere(plots: Path) -> None:
    check_all(plots)
    plain = ecodetect.estimate(plots).together.individuals
    found = ecodetect.estimate(plots, visible=(0.8, 0.05)).together.individuals
    assert plain is not None
    assert found is not None
    assert found.value == pytest.approx(plain.value / 0.8)
    log = np.hypot(np.log(plain.high / plain.value), 1.959964 * 0.05 / 0.8)
    assert found.high == pytest.approx(found.value * np.exp(log), rel=1e-6)


def test_the_change_since_another_survey_has_an_interval(ground: Path, plots: Path) -> None:
    check_all(plots)
    other = ground / "other.plots.gpkg"
    ecodetect.plots(ground / "found.gpkg", other, n=20, size="2m", seed=5)
    check_all(other)
    (change,) = ecodetect.estimate(plots, since=other).changes
    assert change.difference.low < change.difference.value == 0 < change.difference.high


def test_blind_and_reviewed_plots_are_compared(ground: Path) -> None:
    done = ecodetect.plots(ground / "found.gpkg", n=20, size="2m", blind=8)
    assert done.path is not None
    check_all(done.path)
    blind, review = ecodetect.estimate(done.path).groups
    assert (blind.name, blind.plots) == ("blind", 8)
    assert blind.difference.value < 0 == review.difference.value  # nothing was marked in the blind ones


def test_another_level_gives_a_narrower_interval(plots: Path) -> None:
    check_all(plots)
    widths = []
    for level in (0.8, 0.95):
        number = ecodetect.estimate(plots, level=level).together.individuals
        assert number is not None
        widths.append(number.half_width)
    assert widths[0] < widths[1]


# -- the command line --------------------------------------------------------------------------------------


def test_from_the_scan_to_a_report(ecodetect: Run, ground: Path) -> None:
    done = ecodetect("plots", ground / "found.gpkg", "-n", 20, "--size", "2m", "--blind", 3)
    assert done.code == 0, done.err
    assert f"20 plots of {CELLS} cells of 2 m" in done.out
    path = ground / "found.plots.gpkg"
    check_all(path)
    done = ecodetect("estimate", path, "-o", ground / "report.md", "--table", ground / "plots.csv")
    assert done.code == 0, done.err
    assert "individuals (" in done.out
    report = (ground / "report.md").read_text(encoding="utf-8")
    assert f"divided into {CELLS} cells of 2 m" in report
    assert "who saw the detections in some of them" in report
    rows = (ground / "plots.csv").read_text(encoding="utf-8").splitlines()
    assert (
        rows[0] == "plot,stratum,cell,state,used,blind,checker,y_object,x_object,missed_object,false_object"
    )
    assert len(rows) == 21
    assert "next: plots 21 to 40" in done.out
    assert ecodetect("plots", path, "--more", 5).code == 0
    assert "+ 0" not in ecodetect("estimate", path).out


def test_a_dry_run_writes_nothing(ecodetect: Run, ground: Path) -> None:
    before = sorted(ground.iterdir())
    done = ecodetect("plots", ground / "found.gpkg", "-n", 20, "--size", "2m", "--dry-run")
    assert done.code == 0
    assert "stratum" in done.out
    assert sorted(ground.iterdir()) == before


def test_json_has_all_numbers(ecodetect: Run, plots: Path) -> None:
    check_all(plots)
    found = json.loads(ecodetect("estimate", plots, "--json").out)
    (one,) = found["classes"]
    assert one["individuals"].keys() == {"value", "low", "high"}
    assert found["plots"]["used"] == list(range(1, 21))
    assert len(found["strata"]) > 1


# -- bad input: one sentence, exit code 2, nothing written -------------------------------------------------


def refused(run: Run, folder: Path, says: str, *arguments: object) -> None:
    """The command fails with one sentence, and writes nothing."""
    before = {each.name: each.read_bytes() for each in folder.iterdir()}
    failed = run(*arguments)
    assert failed.code == 2, failed.out
    assert len(failed.err.splitlines()) == 1, failed.err
    assert says in failed.err
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == before


def test_a_scan_that_has_changed_since_the_draw(ecodetect: Run, ground: Path, plots: Path) -> None:
    check_all(plots)
    asked = ("--set", "min_area=0.2m2", "--overwrite")
    ecodetect("scan", ground / "scene.tif", "-m", "threshold", "-o", ground / "found.gpkg", *asked)
    refused(ecodetect, ground, "was drawn for another scan", "estimate", plots, "-o", ground / "r.md")
    refused(ecodetect, ground, "was drawn for another scan", "plots", plots, "--more", 5)


def test_points_that_lie_in_no_plot(ecodetect: Run, ground: Path, plots: Path) -> None:
    far = geopandas.GeoDataFrame(geometry=shapely.points([(0.0, 0.0), (1.0, 1.0)]), crs=32630)
    far.to_file(ground / "far.gpkg")
    says = "none of the 2 points lies in a plot"
    refused(ecodetect, ground, says, "estimate", ground / "found.gpkg", plots, ground / "far.gpkg")


def test_points_off_the_searched_ground_dont_count(ground: Path) -> None:
    area = geopandas.GeoDataFrame(geometry=[shapely.box(500_000, 4_099_974, 500_012.5, 4_100_000)], crs=32630)
    area.to_file(ground / "west.gpkg")
    done = ecodetect.plots(ground / "found.gpkg", n=25, size="2m", area=ground / "west.gpkg")
    assert done.path is not None
    check_all(done.path)
    outlines = pyogrio.read_dataframe(done.path, layer="plots").geometry
    cut = outlines[outlines.bounds.maxx == 500_012.5]
    assert len(cut)
    y = cut.iloc[0].centroid.y
    before = ecodetect.estimate(done.path).together.counted
    add(done.path, [(500_012.8, y)])
    found = ecodetect.estimate(done.path)
    assert found.together.counted == before
    assert "individuals-off-ground" in {note.code for note in found.notes}


def test_a_label_that_is_no_class(ecodetect: Run, ground: Path, plots: Path) -> None:
    check_all(plots)
    middle = pyogrio.read_dataframe(plots, layer="plots").geometry[0].centroid
    add(plots, [(middle.x, middle.y)], label="palm")
    refused(ecodetect, ground, "label 'palm' of point", "estimate", plots)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("DROP TABLE ecodetect_draw", "has no table ecodetect_draw"),
        ("UPDATE ecodetect_draw SET json = '{}'", "its table of the draw isn't as it was written"),
        ("ALTER TABLE plots DROP COLUMN state", "the layer 'plots' has no field 'state' any more"),
        ("ALTER TABLE individuals DROP COLUMN verdict", "the layer 'individuals' has no field 'verdict'"),
        ("DELETE FROM plots WHERE plot = 4", "plot 4 is missing"),
        ("UPDATE plots SET state = 'finished' WHERE plot = 4", "state is 'finished', none of to do, done"),
        ("UPDATE plots SET state = 'to do'", "no plot is done yet: set the state"),
        ("UPDATE plots SET state = NULL", "no plot is done yet: set the state"),
    ],
)
def test_a_file_that_isnt_as_it_was_drawn(
    ecodetect: Run, ground: Path, plots: Path, change: str, says: str
) -> None:
    check_all(plots)
    sql(plots, change)
    refused(ecodetect, ground, says, "estimate", plots, "--table", ground / "t.csv")


def test_a_file_that_lost_its_draw_is_estimated_with_the_same_draw_again(ground: Path, plots: Path) -> None:
    check_all(plots)
    gone = sql(plots, "SELECT id FROM individuals WHERE plot IS NOT NULL ORDER BY id")[0][0]
    sql(plots, f"UPDATE individuals SET verdict = 'false' WHERE id = '{gone}'")
    wanted = ecodetect.estimate(plots).together.individuals
    sql(plots, "DROP TABLE ecodetect_draw")
    again = ecodetect.plots(
        ground / "found.gpkg", ground / "again.gpkg", n=20, size="2m", within=Length(0.3, "m")
    )
    assert again.path is not None
    assert ecodetect.estimate(again.path, checked=plots).together.individuals == wanted


def test_a_layer_that_was_renamed(ecodetect: Run, ground: Path, plots: Path) -> None:
    check_all(plots)
    layer = pyogrio.read_dataframe(plots, layer="individuals")
    layer.to_file(plots, layer="seen")
    sql(plots, "DELETE FROM gpkg_contents WHERE table_name = 'individuals'")
    refused(ecodetect, ground, "has no layer 'individuals'", "estimate", plots)


def test_a_plot_that_was_moved(ecodetect: Run, ground: Path, plots: Path) -> None:
    layer = pyogrio.read_dataframe(plots, layer="plots")
    layer["state"] = "done"
    row = layer.index[layer["plot"] == 12][0]
    layer.loc[row, "geometry"] = shapely.transform(layer.geometry[row], lambda xy: xy + 0.5)
    layer.to_file(plots, layer="plots")
    refused(ecodetect, ground, "plot 12 isn't where it was drawn", "estimate", plots)


def test_fewer_cells_than_three_for_each_plot(ecodetect: Run, ground: Path) -> None:
    says = "fewer than 3 for each of 20 plots: 3 m would do"
    refused(ecodetect, ground, says, "plots", ground / "found.gpkg", "-n", 20, "--size", "4m")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("-n", 5), "At least 10 plots"),
        (("--half-width", "10%"), "give the number of plots"),
        (("--half-width", "wide"), "--half-width takes a share"),
        (("--size", "2"), "a length with a unit"),
        (("--class", "palm"), "has no class 'palm'; it has: object"),
        (("--blind", "some"), "--blind takes a number"),
        (("--more", "5"), "has no table ecodetect_draw"),
        (("-o", "plots.csv"), "write a .gpkg"),
        (("--within", "3"), "a length with a unit"),
    ],
)
def test_options_that_make_no_sense(
    ecodetect: Run, ground: Path, arguments: tuple[object, ...], says: str
) -> None:
    refused(ecodetect, ground, says, "plots", ground / "found.gpkg", *arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--visible", "0.8"), "--visible takes SHARE,SE"),
        (("--visible", "1.8,0.1"), "must lie in (0, 1]"),
        (("--level", "95"), "The level must be at least 0.5"),
        (("--not-done", "x"), "--not-done takes numbers"),
        (("--not-done", "3"), "is said by their state"),
        (("--by", "nowhere.gpkg"), "doesn't exist"),
        (("--since", "nowhere.gpkg"), "doesn't exist"),
    ],
)
def test_estimates_that_make_no_sense(
    ecodetect: Run, ground: Path, plots: Path, arguments: tuple[object, ...], says: str
) -> None:
    check_all(plots)
    refused(ecodetect, ground, says, "estimate", plots, *arguments)


def test_a_raster_that_isnt_there_or_is_another(ecodetect: Run, ground: Path) -> None:
    write_scene(ground / "other.tif", seed=9, **SCENE)
    (ground / "scene.tif").rename(ground / "away")
    refused(ecodetect, ground, "which isn't beside it", "plots", ground / "found.gpkg", "-n", 10)
    (ground / "other.tif").rename(ground / "scene.tif")
    refused(ecodetect, ground, "isn't the raster that was scanned", "plots", ground / "found.gpkg", "-n", 10)


def test_what_somebody_checked_is_never_replaced_unasked(ecodetect: Run, ground: Path, plots: Path) -> None:
    refused(ecodetect, ground, "it may hold what somebody checked", "plots", ground / "found.gpkg", "-n", 10)


def test_a_file_that_is_open_elsewhere_isnt_extended(ecodetect: Run, ground: Path, plots: Path) -> None:
    with sqlite3.connect(plots) as database:
        add_functions(database)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("UPDATE plots SET state = 'done'")
        database.commit()
        done = ecodetect("plots", plots, "--more", 5)
        assert done.code == 2
        assert "is open in another program" in done.err
        assert ecodetect("estimate", plots).code == 0  # what was saved is read all the same
    database.close()
