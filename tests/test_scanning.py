"""The scan from files to files: whole, resumable, one bad file at a time."""

import contextlib
import itertools
import json
import os
import re
import signal
import sqlite3
import time
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from ecodetect_cli.scan import ProgressBar
from PIL import Image
from rasterio.transform import Affine, from_origin

import ecodetect
from ecodetect.errors import Interrupted, UserError
from ecodetect.formats import files as formats
from ecodetect.scanning import run as running
from ecodetect.scanning.files import scan, scan_files
from ecodetect.scanning.journal import Journal
from ecodetect.scanning.settings import Output, Settings


def write_scene(path, seed=0, size=200, crs="EPSG:32630", transform=None, dtype="uint8"):
    """Dark squares on light noise."""
    rng = np.random.default_rng(seed)
    grey = rng.integers(170, 200, (size, size)).astype(dtype)
    for _ in range(12):
        x, y = rng.integers(5, size - 25, 2)
        grey[y : y + 12, x : x + 12] = 30
    transform = from_origin(500_000, 4_000_000, 0.5, 0.5) if transform is None else transform
    profile = {"driver": "GTiff", "width": size, "height": size, "count": 1, "dtype": dtype, "crs": crs}
    with rasterio.open(path, "w", **profile, transform=transform) as file:
        file.write(grey, 1)
    return path


ASKED = Settings(model="threshold", options={"largest": "60px"})


def test_python_users_get_detections_and_no_file(tmp_path):
    path = write_scene(tmp_path / "a.tif")
    found = ecodetect.scan(path, model="threshold")
    assert len(found) > 5
    assert found.to_geodataframe().crs.to_epsg() == 32630
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif"]


def test_the_default_output_lies_beside_the_image_and_is_not_made_twice(tmp_path):
    path = write_scene(tmp_path / "a.tif")
    (summary,), failures = scan_files([path], ASKED)
    assert not failures
    assert summary.path == tmp_path / "a.detections.geojson"
    before = summary.path.read_bytes()
    (again,), _ = scan_files([path], ASKED)
    assert again.already_done
    with pytest.raises(UserError, match="replace it"):
        scan_files([path], Settings(model="threshold", options={"largest": "50px"}))
    assert summary.path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a.detections.geojson",
        "a.detections.qml",  # its style for QGIS
        "a.tif",
    ]


IN_TILES = Settings(model="threshold", options={"largest": "60px"}, tile_px=64, workers=1)


def one_pixel_changed(path):
    with rasterio.open(path, "r+") as file:
        pixels = file.read()
        pixels[:, 0, 0] += 1
        file.write(pixels)


@pytest.mark.parametrize(
    "change",
    [one_pixel_changed, lambda path: write_scene(path, seed=1, size=400), lambda path: path.unlink()],
)
def test_a_raster_that_changes_while_it_is_searched_is_said_and_nothing_is_written(tmp_path, change):
    path = write_scene(tmp_path / "a.tif", size=400)

    def replace_it(name, done, total):
        if done == total:
            change(path)

    done, ((_, error),) = scan_files([path], IN_TILES, str(tmp_path / "out.csv"), progress=replace_it)
    assert not done
    assert str(error).startswith(f"{path} was changed while it was read; run the same command again")
    assert {entry.name for entry in tmp_path.iterdir()} <= {"a.tif"}


def test_a_raster_that_changes_between_a_stop_and_the_next_run_is_searched_from_the_beginning(tmp_path):
    path = write_scene(tmp_path / "a.tif", size=400)

    def interrupt(name, done, total):
        if done > total / 2:
            raise KeyboardInterrupt

    def stopped(out):
        with pytest.raises(Interrupted):
            scan_files([path], IN_TILES, str(out), progress=interrupt)

    stopped(tmp_path / "out.csv")
    one_pixel_changed(path)
    (summary,), _ = scan_files([path], IN_TILES, str(tmp_path / "out.csv"))
    assert not summary.resumed
    stopped(tmp_path / "again.csv")
    os.utime(path)  # the same content as far as is seen, but written at another time
    (summary,), _ = scan_files([path], IN_TILES, str(tmp_path / "again.csv"))
    assert (not summary.resumed, "raster-replaced" in {note.code for note in summary.notes}) == (True, True)
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "out.csv").read_bytes()


@pytest.mark.parametrize("suffix", ["geojson", "csv", "gpkg", "fgb", "parquet"])
def test_an_interrupted_scan_goes_on_to_the_same_bytes(tmp_path, suffix):
    path = write_scene(tmp_path / "a.tif", size=400)
    asked = Settings(model="threshold", options={"largest": "60px"}, tile_px=64, workers=1)
    whole = tmp_path / f"whole.{suffix}"
    scan_files([path], asked, str(whole))
    out = tmp_path / f"out.{suffix}"

    def interrupt(name, done, total):
        if done > 0:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="run the same command again"):
        scan_files([path], asked, str(out), progress=interrupt)
    assert not out.exists()
    assert (tmp_path / f"out.{suffix}.journal").exists()
    (summary,), _ = scan_files([path], asked, str(out))
    assert out.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("*.journal*"))
    assert summary.total == len(scan(path, model="threshold", options={"largest": "60px"}))


def test_a_scan_stopped_while_it_writes_says_how_to_go_on(tmp_path, monkeypatch):
    path, out = write_scene(tmp_path / "a.tif"), tmp_path / "out.geojson"

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(running, "write_results", killed)
        with pytest.raises(Interrupted, match=r"kept in .*out.geojson.journal: run the same command again"):
            scan_files([path], ASKED, str(out))
    ((summary,), _) = scan_files([path], ASKED, str(out))
    assert summary.resumed


def test_a_scan_killed_between_writing_and_tidying_up_can_be_run_again(tmp_path):
    path, out = write_scene(tmp_path / "a.tif"), tmp_path / "out.csv"
    scan_files([path], ASKED, str(out))
    finished = out.read_bytes()
    journal = Journal(tmp_path / "out.csv.journal")
    journal.raster("what was left")
    journal.close()
    scan_files([path], ASKED, str(out))
    assert out.read_bytes() == finished


def test_a_table_that_is_there_already_says_by_a_side_file_what_it_answers(tmp_path):
    path, out = write_scene(tmp_path / "a.tif"), tmp_path / "out.csv"
    scan_files([path], ASKED, str(out))
    before = out.read_bytes()
    (again,), _ = scan_files([path], ASKED, str(out))
    assert again.already_done
    with pytest.raises(UserError, match="replace it"):
        scan_files([path], Settings(model="threshold", options={"min_area": "200px"}), str(out))
    assert out.read_bytes() == before
    out.write_text("somebody's notes")
    with pytest.raises(UserError, match="replace it"):
        scan_files([path], ASKED, str(out))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "out.csv", "out.csv.ecodetect"]


def test_other_settings_start_over_but_never_mix(tmp_path):
    path, out = write_scene(tmp_path / "a.tif", size=400), tmp_path / "out.geojson"
    asked = Settings(model="threshold", options={"largest": "60px"}, tile_px=64, workers=1)

    def interrupt(name, done, total):
        if done > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan_files([path], asked, str(out), progress=interrupt)
    other = Settings(model="threshold", options={"largest": "60px", "min_area": "200px"})
    (summary,), _ = scan_files([path], other, str(out))
    assert summary.total == len(scan(path, model="threshold", options=dict(other.options)))


def test_one_bad_file_does_not_stop_the_rest(tmp_path):
    write_scene(tmp_path / "a.tif")
    (tmp_path / "b.tif").write_text("no raster")
    write_scene(tmp_path / "c.tif", seed=1)
    summaries, failures = scan_files([tmp_path], ASKED, str(tmp_path / "out") + "/")
    assert [summary.path.name for summary in summaries] == ["a.detections.geojson", "c.detections.geojson"]
    assert [image.endswith("b.tif") for image, _ in failures] == [True]
    assert not list(tmp_path.rglob("*.journal*"))


def test_rasters_of_one_frame_become_one_layer(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):  # side by side
        write_scene(
            tmp_path / f"{name}.tif", seed, transform=from_origin(500_000 + 100 * seed, 4e6, 0.5, 0.5)
        )
    out = tmp_path / "all.gpkg"
    (summary,), _ = scan_files([tmp_path / "a.tif", tmp_path / "b.tif"], ASKED, str(out))
    layer = formats.read(out)
    assert (
        len(layer) == summary.total == sum(len(scan(tmp_path / f"{n}.tif", model="threshold")) for n in "ab")
    )
    assert set(layer.columns["source"]) == {"a.tif", "b.tif"}
    assert len(set(layer.columns["id"])) == len(layer)


def test_rasters_of_different_frames_become_one_geojson_but_no_geopackage(tmp_path):
    write_scene(tmp_path / "a.tif")
    write_scene(tmp_path / "b.tif", crs="EPSG:32629")
    images = [tmp_path / "a.tif", tmp_path / "b.tif"]
    scan_files(images, ASKED, str(tmp_path / "all.geojson"))
    with pytest.raises(UserError, match="different CRSs"):
        scan_files(images, ASKED, str(tmp_path / "all.gpkg"))


def test_an_area_of_interest_in_another_crs(tmp_path):
    path = write_scene(tmp_path / "a.tif")
    whole = scan(path, model="threshold")
    west = shapely.box(0, 0, 100, 200)
    lonlat = shapely.transform(west, whole.grid.to_lonlat)
    aoi = tmp_path / "west.geojson"
    feature = {"type": "Feature", "properties": {}, "geometry": json.loads(shapely.to_geojson(lonlat))}
    aoi.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    out = tmp_path / "out.geojson"
    (summary,), _ = scan_files([path], Settings(model="threshold", aoi=str(aoi)), str(out))
    assert summary.total == np.count_nonzero(whole.centres()[:, 0] <= 100)
    assert summary.megapixels == pytest.approx(0.02, rel=0.02)


def test_an_area_of_interest_off_the_raster_says_where_both_lie(tmp_path):
    path = write_scene(tmp_path / "a.tif")
    aoi = tmp_path / "far.geojson"
    square = shapely.box(10, 50, 10.1, 50.1)
    feature = {"type": "Feature", "properties": {}, "geometry": json.loads(shapely.to_geojson(square))}
    aoi.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    with pytest.raises(
        UserError, match=r"far.geojson lies at lon/lat 10…10.1, 50…50.1, off the raster at lon/lat -3"
    ):
        scan(path, model="threshold", aoi=str(aoi))


def test_candidates_have_a_contour_and_a_square(tmp_path, ecodetect):
    path = write_scene(tmp_path / "a.tif")
    out = tmp_path / "c.geojson"
    assert ecodetect("candidates", path, "-o", out, "--side", "10m").code == 0
    layer = formats.read(out)
    assert set(layer.columns["shape"]) == {"contour", "patch"}
    patches = layer[layer.columns["shape"] == "patch"]
    pixels = scan(path, model="threshold").grid
    sides = shapely.bounds(patches.in_pixels(pixels))
    assert np.allclose(sides[:, 2] - sides[:, 0], 20, atol=0.05)


def test_the_summary_says_what_was_found_and_searched(tmp_path, ecodetect):
    path = write_scene(tmp_path / "a.tif")
    outcome = ecodetect("scan", path, "-m", "threshold", "--verify", "--json")
    (facts,) = json.loads(outcome.out)
    assert facts["counts"] == {"object": facts["verified"]["n"]} or facts["verified"]["share"] == 1.0
    assert facts["area_ha"] == pytest.approx(1.0, rel=2e-3)
    assert outcome.code == 0
    assert outcome.err == ""


def test_pictures_are_drawn(tmp_path, ecodetect):
    path = write_scene(tmp_path / "a.tif")
    picture, sheet = tmp_path / "map.png", tmp_path / "sheet.png"
    assert ecodetect("scan", path, "-m", "threshold", "--picture", picture, "--sheet", sheet).code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert sheet.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.tif", "-m", "threshold"], "missing.tif"),
        (["a.tif"], "Name the model"),
        (["a.tif", "-m", "treshold"], "did you mean threshold"),
        (["a.tif", "-m", "threshold", "--tile", "-5"], "must be at least 16; got -5 (--tile)."),
        (["a.tif", "-m", "threshold", "-o", "a.xyz"], "suffix"),
        (["a.tif", "-m", "threshold", "-o", "nowhere/a.geojson"], "nowhere"),
        (["a.tif", "-m", "threshold", "--bands", "nir"], "nir"),
        (["a.tif", "-m", "threshold", "--bands", "7"], "7"),
        (["a.tif", "-m", "threshold", "--set", "levle=3"], "did you mean level"),
        (["a.tif", "-m", "threshold", "--set", "level"], "NAME=VALUE"),
        (["a.tif", "-m", "threshold", "--score", "many"], "--score"),
        (["a.tif", "-m", "threshold", "--score", "shrub=0.5"], "no class 'shrub'"),
        (["a.tif", "-m", "threshold", "--aoi", "missing.gpkg"], "missing.gpkg"),
        (["a.tif", "-m", "threshold", "--max-memory", "lots"], "--max-memory"),
        (["a.tif", "-m", "threshold", "--max-memory", "1MB"], "the least that works"),
        (["a.tif", "-m", "threshold", "--picture", "map.doc"], "map.doc"),
        (["a.tif", "a.tif", "-m", "threshold", "-o", "out.gpkg", "--gsd", "0"], "--gsd"),
        (["*.jp2", "-m", "threshold"], "No raster matches"),
        (["empty", "-m", "threshold"], "holds no raster"),
    ],
)
def test_wrong_input_is_one_sentence_and_nothing_is_written(
    tmp_path, monkeypatch, ecodetect, arguments, words
):
    write_scene(tmp_path / "a.tif")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    outcome = ecodetect("scan", *arguments)
    assert outcome.code == 2
    lines = outcome.err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert words in lines[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "empty"]


def test_all_nodata_is_an_empty_layer(tmp_path, ecodetect):
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "width": 50, "height": 50, "count": 1, "dtype": "uint8", "nodata": 0}
    with rasterio.open(path, "w", **profile, crs="EPSG:32630", transform=from_origin(5e5, 4e6, 1, 1)) as file:
        file.write(np.zeros((50, 50), np.uint8), 1)
    outcome = ecodetect("scan", path, "-m", "threshold")
    assert outcome.code == 0
    assert json.loads((tmp_path / "a.detections.geojson").read_text())["features"] == []


def test_damage_in_mid_scan_names_the_window_and_keeps_what_was_done(tmp_path, ecodetect):
    path, out = tmp_path / "a.tif", tmp_path / "out.geojson"
    grey = np.random.default_rng(0).integers(0, 255, (1024, 1024), dtype=np.uint8)
    profile = {"driver": "GTiff", "width": 1024, "height": 1024, "count": 1, "dtype": "uint8", "tiled": True}
    with rasterio.open(path, "w", **profile, blockxsize=128, blockysize=128, compress="deflate") as file:
        file.write(grey, 1)
    whole = path.read_bytes()
    at = len(whole) * 9 // 10
    path.write_bytes(whole[:at] + bytes(2000) + whole[at + 2000 :])
    outcome = ecodetect("scan", path, "-m", "threshold", "-o", out, "--tile", "128", "--set", "level=100")
    assert outcome.code == 2
    (line,) = [line for line in outcome.err.splitlines() if not line.startswith("note")]
    assert "a.tif" in line
    assert re.search(r"x \d+ to \d+, y \d+ to \d+", line)
    assert not out.exists()
    kept = (tmp_path / "out.geojson.journal").exists()
    assert kept == ("kept in" in line)


def test_a_locked_journal_is_another_scan(tmp_path, ecodetect):
    path = write_scene(tmp_path / "a.tif")
    other = Journal(tmp_path / "out.geojson.journal")
    outcome = ecodetect("scan", path, "-m", "threshold", "-o", tmp_path / "out.geojson")
    assert outcome.code == 2
    assert "Another scan" in outcome.err
    other.close()


def test_a_full_disk_keeps_the_journal(tmp_path, monkeypatch, ecodetect):
    path, out = write_scene(tmp_path / "a.tif"), tmp_path / "out.geojson"
    real = formats.write

    def full(*arguments, **named):
        raise UserError(f"The disk is full while writing {out}; free space and run the same command again.")

    monkeypatch.setattr(formats, "write", full)
    outcome = ecodetect("scan", path, "-m", "threshold", "-o", out)
    assert outcome.code == 2
    assert outcome.err.startswith("error: The disk is full")
    with contextlib.closing(sqlite3.connect(f"{out}.journal")) as kept:
        assert kept.execute("SELECT count(*) FROM units").fetchone()[0] >= 1
    monkeypatch.setattr(formats, "write", real)
    assert ecodetect("scan", path, "-m", "threshold", "-o", out).code == 0


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32630", Affine(0.5, 0, 5e5, 0, -0.5, 4e6)),
        ("EPSG:32630", Affine.translation(5e5, 4e6) @ Affine.rotation(20) @ Affine.scale(0.5, -0.5)),
        ("EPSG:32630", Affine(0.5, 0.1, 5e5, 0.05, -0.5, 4e6)),
        ("EPSG:32630", Affine(0.5, 0, 5e5, 0, 0.5, 4e6)),
        ("EPSG:32630", Affine(0.5, 0, 5e5, 0, -0.25, 4e6)),
        ("EPSG:4326", Affine(5e-6, 0, -3, 0, -5e-6, 36)),
    ],
    ids=["north-up", "rotated", "sheared", "south-up", "non-square", "lonlat"],
)
def test_objects_lie_where_they_were_put_whatever_the_grid(tmp_path, crs, transform):
    """Squares at known pixels come back at the map positions of their corners, read by pyogrio alone."""
    grey = np.full((120, 160), 200, np.uint8)
    places = [(20, 30), (100, 70), (60, 90)]
    for x, y in places:
        grey[y : y + 14, x : x + 14] = 20
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "width": 160, "height": 120, "count": 1, "dtype": "uint8", "crs": crs}
    with rasterio.open(path, "w", **profile, transform=transform) as file:
        file.write(grey, 1)
    options = {"level": "100", "smooth": "0px", "open": "0px"}
    for suffix in ("gpkg", "fgb", "parquet"):
        out = tmp_path / f"out.{suffix}"
        scan_files([path], Settings(model="threshold", options=options), str(out), Output())
        frame = geopandas.read_parquet(out) if suffix == "parquet" else pyogrio.read_dataframe(out, layer=0)
        pixels = [
            shapely.transform(g, lambda xy: np.stack(~transform @ tuple(xy.T), 1)) for g in frame.geometry
        ]
        got = sorted(tuple(np.round(g.bounds, 6)) for g in pixels)
        assert got == sorted((x, y, x + 14, y + 14) for x, y in places)


def test_two_processes_share_a_folder(tmp_path, ecodetect):
    """Each skips what the other is at work on, with a note, and both end well."""
    folder = tmp_path / "flights"
    folder.mkdir()
    for name in "ab":
        write_scene(folder / f"{name}.tif")
    held = Journal(folder / "a.detections.geojson.journal")
    held.raster("another process")
    done = ecodetect("scan", folder, "-m", "threshold", "--json")
    assert done.code == 0, done.err
    first, second = json.loads(done.out)
    assert [first["in_work"], second["in_work"]] == [True, False]
    assert [note["code"] for note in first["notes"]] == ["in-work"]
    assert not (folder / "a.detections.geojson").exists()
    held.close()
    done = ecodetect("scan", folder, "-m", "threshold")
    assert done.code == 0
    assert (folder / "a.detections.geojson").exists()


def test_what_the_other_process_finished_meanwhile_is_not_searched_again(tmp_path, monkeypatch):
    folder = tmp_path / "flights"
    folder.mkdir()
    paths = [write_scene(folder / f"{name}.tif") for name in "ab"]
    opened, first = Journal.__init__, folder / "a.detections.geojson"

    def outrun(self, path):
        if path.name.startswith("a.") and not first.exists():
            monkeypatch.setattr(Journal, "__init__", opened)
            scan_files([paths[0]], ASKED)
        opened(self, path)

    monkeypatch.setattr(Journal, "__init__", outrun)
    summaries, failures = scan_files(paths, ASKED)
    assert not failures
    assert [summary.already_done for summary in summaries] == [True, False]
    assert not list(folder.glob("*.journal*"))


def test_restart_leaves_the_journal_of_a_scan_at_work(tmp_path, ecodetect):
    path, place = write_scene(tmp_path / "a.tif"), tmp_path / "out.gpkg.journal"
    held = Journal(place)
    done = ecodetect("scan", path, "-m", "threshold", "-o", tmp_path / "out.gpkg", "--restart")
    assert (done.code, place.exists()) == (2, True)
    assert "Another scan" in done.err
    held.close()
    with place.open("r+b") as file:
        file.seek(4000)
        file.truncate()  # damaged
    assert ecodetect("scan", path, "-m", "threshold", "-o", tmp_path / "out.gpkg", "--restart").code == 0


@pytest.mark.parametrize(
    ("suffix", "orientation"),
    [
        *(pytest.param(suffix, 1, marks=pytest.mark.slow) for suffix in ("geojson", "shp")),
        *(("gpkg", 1), ("png", 1), ("csv", 6)),
    ],
)
def test_pictures_are_the_same_drawn_with_the_scan_and_from_its_output(tmp_path, suffix, orientation):
    """Formats round differently, or have no scores: what the file says is drawn in either case."""
    with rasterio.open(write_scene(tmp_path / "a.tif")) as scene:
        photo = Image.fromarray(scene.read(1))
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo.save(tmp_path / "photo.jpg", exif=exif)
    image, out = tmp_path / ("photo.jpg" if orientation != 1 else "a.tif"), tmp_path / f"out.{suffix}"

    def drawn(name):
        output = Output(picture=str(tmp_path / f"{name}map.png"), sheet=str(tmp_path / f"{name}sheet.jpg"))
        (summary,), _ = scan_files([image], Settings(model="blobs"), str(out), output)
        assert summary.total > 5
        return Path(output.picture).read_bytes(), Path(output.sheet).read_bytes()

    assert drawn("with") == drawn("from")


@pytest.mark.parametrize("written", [0, 32_503_680_000], ids=["in 1970", "in 3000"])
def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch, written):
    """Neither the machine's, to and fro, nor that of the one on which the raster was written."""
    path = write_scene(tmp_path / "a.tif", size=400)

    def found(name):
        (summary,), _ = scan_files([path], IN_TILES, str(tmp_path / name))
        assert summary.seconds >= 0
        return (tmp_path / name).read_bytes()

    before = found("before.csv")
    os.utime(path, (written, written))
    days = itertools.cycle([0.0, 4e9, 1.7e9])
    monkeypatch.setattr(time, "time", lambda: next(days))
    assert found("after.csv") == before


def test_what_comes_while_a_scan_runs_is_kept(tmp_path):
    path, out = write_scene(tmp_path / "a.tif", size=400), tmp_path / "out.csv"

    def another_program(name, done, total):
        if done == total:
            out.write_text("theirs")

    (summary,), _ = scan_files([path], IN_TILES, str(out), progress=another_program)
    assert (tmp_path / "out.edited.csv").read_text() == "theirs"
    assert "edits-kept" in {note.code for note in summary.notes}
    assert formats.read(out).columns["score"].size == summary.total


@pytest.mark.parametrize(
    "flags",
    [
        ("-o", "x.gpkg", "--sheet", "a.png"),
        ("-o", "x.gpkg", "--picture", "p.png", "--sheet", "p.png"),
        ("-o", "x.png", "--picture", "x.png"),
        ("-o", "a.png", "--overwrite"),
        ("-o", "x.gpkg", "--picture", "photo.png"),
    ],
)
def test_a_scan_replaces_no_raster_and_no_picture_of_others(tmp_path, monkeypatch, ecodetect, flags):
    monkeypatch.chdir(tmp_path)
    with rasterio.open(write_scene(tmp_path / "a.tif")) as scene:
        pixels = scene.read(1)
    (tmp_path / "a.tif").unlink()
    for name in ("a.png", "photo.png"):
        Image.fromarray(pixels).save(tmp_path / name)
    before = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}
    done = ecodetect("scan", "a.png", "-m", "threshold", *flags)
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_what_the_system_ends_a_scan_with_is_as_ctrl_c(tmp_path, monkeypatch, ecodetect, name):
    number = getattr(signal, name, None)
    if number is None or signal.getsignal(number) != signal.SIG_DFL:
        pytest.skip("not here, or somebody else's")
    path = write_scene(tmp_path / "a.tif", size=400)

    def shut_down(bar, source, done, total):
        if done > total / 2:
            signal.raise_signal(number)

    flags = ("-m", "threshold", "--tile", 64, "--workers", 1, "-o", tmp_path / "out.csv")
    with monkeypatch.context() as patch:
        patch.setattr(ProgressBar, "show", shut_down)
        done = ecodetect("scan", path, *flags)
    assert done.code == 130
    assert "out.csv.journal: run the same command again to go on." in done.err
    assert signal.getsignal(number) == signal.SIG_DFL
    assert {entry.name for entry in tmp_path.iterdir()} == {"a.tif", "out.csv.journal"}
    assert ecodetect("scan", path, *flags).code == 0
