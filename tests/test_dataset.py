"""Samples hold the pixels and the annotations of their place, however the files are laid out."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import psutil
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from training_sets import noise, write_boxes, write_coco, write_points, write_raster

from ecodetect.annotations import dataset
from ecodetect.annotations.annotated_raster import object_px
from ecodetect.annotations.contract import Contract, contract
from ecodetect.annotations.dataset import Dataset, Spot
from ecodetect.annotations.options import AnnotationOptions
from ecodetect.annotations.sources import gather
from ecodetect.bundle.card import Card, Scaling
from ecodetect.bundle.input_spec import input_spec
from ecodetect.errors import UserError
from ecodetect.formats import files as formats
from ecodetect.grid import Window
from ecodetect.layer import Layer, Stream
from ecodetect.raster.reading import Raster, open_raster
from ecodetect.sizes import Length

BOXES = [(10, 10, 30, 26), (60, 40, 80, 60), (70, 90, 90, 110), (20, 80, 44, 100)]


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, Path]:
    """A raster of 0.5 m and four boxes on it."""
    return write_raster(tmp_path / "scene.tif", noise(3, 128, 128)), write_boxes(tmp_path / "a.csv", BOXES)


def plain(bands: tuple[str, ...] = ("red", "green", "blue"), **kwargs: object) -> Contract:
    scaling = Scaling(offset=(0.0,) * len(bands), span=(1.0,) * len(bands))
    facts = {"unit": "m", "gsd": 0.5, "scaling": scaling, "fill": -1.0, "classes": ("shrub",), **kwargs}
    return Contract(bands=bands, **facts)  # type: ignore[arg-type]


def test_a_sample_is_what_the_raster_holds_there(scene: tuple[Path, Path]) -> None:
    sources = gather(scene).sources
    data = Dataset(sources, plain())
    window = Window(50, 30, 40, 50)
    sample = data.chip(Spot(0, window))
    with open_raster(scene[0]) as raster:
        chip = raster.read(window, raster.bands)
    assert np.array_equal(sample.image, chip.pixels.astype(np.float32))
    assert sample.valid.all()
    # Centres may lie outside by as much as the object is wide.
    assert sample.objects.xy.tolist() == [[20.0, 20.0], [30.0, 70.0], [-18.0, 60.0]]
    assert sample.objects.size.tolist() == [[20.0, 20.0], [20.0, 20.0], [24.0, 20.0]]
    assert sample.objects.label.tolist() == [0, 0, 0]


def test_beyond_the_raster_there_is_nothing(scene: tuple[Path, Path]) -> None:
    data = Dataset(gather(scene).sources, plain())
    sample = data.chip(Spot(0, Window(-20, 100, 60, 60)))
    assert sample.valid.sum() == 40 * 28
    assert not sample.valid[:, :20].any()
    assert (sample.image[:, ~sample.valid] == -1.0).all()
    assert data.chip(Spot(0, Window(500, 500, 8, 8))).valid.sum() == 0


def test_unknown_is_not_absent(scene: tuple[Path, Path]) -> None:
    """Beyond the hull nothing is known; a layer says otherwise, and so does `image`."""
    image, boxes = scene
    (source,) = gather([image, boxes]).sources
    assert source.complete_by == "hull"
    known = Dataset([source], plain()).chip(Spot(0, Window(0, 0, 128, 128))).known
    assert not known[0, 127]
    assert not known[127, 127]
    assert known[60, 50]
    half = object_px([source]) / 2
    hull = shapely.MultiPoint([[20, 18], [70, 50], [80, 100], [32, 90]]).convex_hull.buffer(half)
    assert known.sum() == pytest.approx(hull.area, rel=0.03)
    plots = Layer(np.array([shapely.box(0, 0, 64, 128)]), grid=source.grid)
    formats.write(image.with_name("plots.gpkg"), Stream([plots], "Polygon", {}, grid=source.grid))
    (source,) = gather([image, boxes], AnnotationOptions(complete=str(image.with_name("plots.gpkg")))).sources
    assert source.complete_by == "polygons"
    known = Dataset([source], plain()).chip(Spot(0, Window(0, 0, 128, 128))).known
    assert known[:, :64].all()
    assert not known[:, 64:].any()
    (source,) = gather([image, boxes], AnnotationOptions(complete="image")).sources
    assert Dataset([source], plain()).chip(Spot(0, Window(0, 0, 128, 128))).known.all()


def test_an_empty_file_says_complete_and_empty(tmp_path: Path) -> None:
    image = write_raster(tmp_path / "a.tif", noise(3, 64, 64))
    (source,) = gather([image, write_points(tmp_path / "a.csv", [])]).sources
    assert (len(source.annotations), source.complete_by) == (0, "image")
    assert Dataset([source], plain()).chip(Spot(0, Window(0, 0, 64, 64))).known.all()


def test_ignored_by_file_by_class_and_at_the_edge(tmp_path: Path) -> None:
    image = write_raster(tmp_path / "a.tif", noise(3, 128, 128))
    boxes = write_boxes(tmp_path / "a.csv", BOXES, ["shrub", "shrub", "doubtful", "shrub"])
    doubtful = write_boxes(tmp_path / "doubtful.csv", [(100, 10, 120, 30)], ["doubtful"])
    asked = AnnotationOptions(ignore=("doubtful", str(doubtful)), edge=Length(2.0, "m"))
    (source,) = gather([image, boxes], asked).sources
    sample = Dataset([source], plain()).chip(Spot(0, Window(0, 0, 128, 128)))
    assert len(sample.objects) == 3
    assert sample.ignored[90:110, 70:90].all()
    assert sample.ignored[10:30, 100:120].all()
    assert sample.ignored[:4].all()
    assert sample.ignored[:, -4:].all()
    assert not sample.ignored[4:10, 4:90].any()
    # Half an individual farther inside only what is annotated is known.
    half = float(np.percentile(np.sqrt(sample.objects.size.prod(axis=1)), 95)) / 2
    assert not sample.known[: 4 + int(half)].any()
    # There a box that is clear of the edge is known all the same.
    assert sample.beside is not None
    assert not (sample.beside & (sample.known | _edge_of(sample.beside, 4))).any()
    (free,) = gather([image, boxes], AnnotationOptions(ignore=("doubtful", str(doubtful)))).sources
    known = Dataset([free], plain()).chip(Spot(0, Window(0, 0, 128, 128))).known
    inner = slice(6 + int(half), -6 - int(half))
    assert (sample.known[inner, inner] == known[inner, inner]).all()
    assert ((sample.known | sample.beside | _edge_of(known, 4)) == (known | _edge_of(known, 4))).all()
    assert known[inner, inner].any()
    with pytest.raises(UserError, match=r"'bush' can't be ignored: .* \(doubtful, shrub\)\.$"):
        gather([image, boxes], AnnotationOptions(ignore=("bush",)))


def _edge_of(mask: np.ndarray, width: int) -> np.ndarray:
    edge = np.ones_like(mask)
    edge[width:-width, width:-width] = False
    return edge


def test_a_working_grid_moves_pixels_and_annotations_alike(scene: tuple[Path, Path]) -> None:
    sources = gather(scene).sources
    data = Dataset(sources, plain(gsd=1.0))
    assert data.grids[0].width in (64, 65)
    sample = data.chip(Spot(0, Window(0, 0, 64, 64)))
    native = Dataset(sources, plain()).objects(0)
    factor = native.xy / data.objects(0).xy
    assert np.ptp(factor) < 1e-6
    assert np.allclose(native.size / data.objects(0).size, factor)
    assert (
        sample.image.std() < 0.6 * Dataset(sources, plain()).chip(Spot(0, Window(0, 0, 64, 64))).image.std()
    )
    # A survey's rasters differ by hairs on the ground; they are read as they are.
    assert Dataset(sources, plain(gsd=0.503)).grids[0] == sources[0].grid


def test_points_with_a_radius_and_an_accuracy_row_by_row(tmp_path: Path) -> None:
    image = write_raster(tmp_path / "a.tif", noise(3, 64, 64))
    points = write_points(
        tmp_path / "a.csv",
        [(10.5, 10.5), (40.5, 30.5)],
        radius_m=["2", ""],
        accuracy_m=["1.5", ""],
        label=["shrub", "shrub"],
    )
    objects = Dataset(
        gather([image, points], AnnotationOptions(radius=Length(3, "px"))).sources, plain()
    ).objects(0)
    assert objects.size[:, 0] == pytest.approx([8.0, 6.0], rel=2e-3)
    assert objects.accuracy_px == pytest.approx([3.0, 0.0], rel=2e-3)
    unsized = Dataset(gather([image, points]).sources, plain()).objects(0)
    assert np.isnan(unsized.size[1]).all()


# -- layouts -----------------------------------------------------------------------------------------------

POINTS = {"a": [(5.5, 6.5), (20.5, 30.5)], "b": [(9.5, 9.5)], "c": []}


def folder_of_images(folder: Path, suffix: str = ".tif") -> list[Path]:
    return [
        write_raster(folder / f"{name}{suffix}", noise(3, 48, 48, number), shift_m=(100.0 * number, 0))
        for number, name in enumerate(POINTS)
    ]


def found_in(*paths: Path, **asked: object) -> dict[str, list[list[float]]]:
    sources = gather(paths, AnnotationOptions(**asked)).sources  # type: ignore[arg-type]
    assert {source.complete_by for source in sources} == {"image"}
    return {source.name: source.xy.round(6).tolist() for source in sources}


EXPECTED = {f"{name}.tif": [list(point) for point in points] for name, points in POINTS.items()}


def test_a_file_for_each_image_in_a_folder_or_beside(tmp_path: Path) -> None:
    folder_of_images(tmp_path / "one" / "images")
    folder_of_images(tmp_path / "two")
    for name, points in POINTS.items():
        write_points(tmp_path / "one" / "points" / f"{name}.csv", points)
        write_points(tmp_path / "two" / f"{name}.csv", points)
    (tmp_path / "one" / "README.txt").write_text("not a table", encoding="utf-8")
    assert found_in(tmp_path / "one") == EXPECTED
    assert found_in(tmp_path / "two") == EXPECTED
    assert found_in(tmp_path / "one" / "images", tmp_path / "one" / "points") == EXPECTED


def test_one_table_for_all_images(tmp_path: Path) -> None:
    folder_of_images(tmp_path / "images")
    rows = [(name, *point) for name, points in POINTS.items() for point in points]
    table = write_points(tmp_path / "t.csv", [row[1:] for row in rows], image=[row[0] for row in rows])
    some = {name: points for name, points in EXPECTED.items() if points}
    gathered = gather([tmp_path / "images", table])
    assert gathered.unmarked == ("c.tif",)
    assert any("1 of 3 images" in str(note) for note in gathered.notes)
    assert found_in(tmp_path / "images", table) == some
    assert found_in(tmp_path / "images", table, empty_images=True) == EXPECTED


def test_one_raster_out_of_a_table_about_several(tmp_path: Path) -> None:
    image = folder_of_images(tmp_path)[1]
    table = write_points(tmp_path / "t.csv", [(5.5, 6.5), (9.5, 9.5)], image=["a.tif", "b.tif"])
    (source,) = gather([image, table]).sources
    assert source.xy.tolist() == [[9.5, 9.5]]


def test_coordinates_of_the_ground_in_a_table(tmp_path: Path) -> None:
    image = folder_of_images(tmp_path)[0]
    (source,) = gather([image, write_points(tmp_path / "a.csv", POINTS["a"])]).sources
    world = write_points(tmp_path / "utm.csv", source.grid.to_world(source.xy).tolist())
    (again,) = gather([image, world]).sources
    assert np.abs(again.xy - source.xy).max() < 0.02


def test_one_coco_file_knows_its_empty_images(tmp_path: Path) -> None:
    folder_of_images(tmp_path)
    boxes = {f"{n}.tif": [(x - 2, y - 2, 4.0, 4.0) for x, y in points] for n, points in POINTS.items()}
    write_coco(tmp_path / "annotations.json", boxes, 48)
    assert found_in(tmp_path) == EXPECTED


def test_one_layer_by_place_where_it_names_no_image(tmp_path: Path) -> None:
    images = folder_of_images(tmp_path / "images")
    sources = gather([tmp_path / "images", write_coco_of(tmp_path)]).sources
    world = np.concatenate([source.grid.to_world(source.xy) for source in sources])
    layer = Layer(shapely.points(world), crs=sources[0].grid.crs)
    formats.write(tmp_path / "all.gpkg", Stream([layer], "Point", {}, crs=layer.crs))
    assert len(images) == 3
    assert found_in(tmp_path / "images", tmp_path / "all.gpkg") == {
        name: points for name, points in EXPECTED.items() if points
    }


def write_coco_of(folder: Path) -> Path:
    boxes = {f"{n}.tif": [(x - 2, y - 2, 4.0, 4.0) for x, y in points] for n, points in POINTS.items()}
    return write_coco(folder / "annotations.json", boxes, 48)


def test_label_images_beside(tmp_path: Path) -> None:
    write_raster(tmp_path / "images" / "a.png.tif", noise(1, 32, 32))
    write_raster(tmp_path / "images" / "a.tif", noise(1, 32, 32), gsd_m=None)
    labels = np.zeros((1, 32, 32), np.uint16)
    labels[0, 4:10, 6:12], labels[0, 20:24, 20:26] = 1, 2
    write_raster(tmp_path / "labels" / "a.tif", labels, gsd_m=None)
    (tmp_path / "images" / "a.png.tif").unlink()
    (source,) = gather([tmp_path]).sources
    assert source.xy.tolist() == [[9.0, 7.0], [23.0, 22.0]]


def test_pairs_are_surveys_not_sets(tmp_path: Path) -> None:
    """Rasters given one by one are complete within their hulls, as one alone is."""
    images = folder_of_images(tmp_path)[:2]
    given = [
        path
        for image, points in zip(images, ("a", "b"), strict=True)
        for path in (image, write_points(tmp_path / f"{points}.csv", POINTS[points]))
    ]
    assert [source.complete_by for source in gather(given).sources] == ["hull", "hull"]


def test_crowns_and_plots_in_one_file(tmp_path: Path) -> None:
    image = write_raster(tmp_path / "a.tif", noise(3, 64, 64))
    with open_raster(image) as raster:
        grid = raster.grid
    for name, shapes in (("crowns", [shapely.box(4, 4, 9, 9)]), ("plots", [shapely.box(0, 0, 32, 64)])):
        frame = geopandas.GeoDataFrame(
            geometry=Layer(np.array(shapes, dtype=object), grid=grid).in_world(), crs=grid.crs
        )
        frame.to_file(tmp_path / "field.gpkg", layer=name, engine="pyogrio")
    field = str(tmp_path / "field.gpkg")
    asked = AnnotationOptions(layer="crowns", complete=field, complete_layer="plots")
    (source,) = gather([image, field], asked).sources
    assert len(source.annotations) == 1
    assert source.complete is not None
    assert source.complete.shape.area == pytest.approx(32 * 64)


def test_what_cannot_be_found_is_said(tmp_path: Path) -> None:
    folder_of_images(tmp_path / "images")
    with pytest.raises(UserError, match=r"has images \(3\) but no annotations"):
        gather([tmp_path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        gather([tmp_path / "empty"])
    with pytest.raises(UserError, match="got 3 names"):
        gather([tmp_path, tmp_path, tmp_path])
    write_points(tmp_path / "points" / "z.csv", [(1, 1)])
    with pytest.raises(UserError, match=r"points has no annotations of a\.tif, b\.tif, c\.tif"):
        gather([tmp_path])


def test_annotations_off_the_raster_say_where_both_lie(tmp_path: Path) -> None:
    image = write_raster(tmp_path / "a.tif", noise(3, 64, 64))
    with pytest.raises(UserError, match=r"a\.csv has places at x 905.*64 x 64 pixels"):
        gather([image, write_boxes(tmp_path / "a.csv", [(900, 900, 910, 910)])])
    gone = write_boxes(tmp_path / "gone.csv", [(900, 900, 910, 910)])
    with pytest.raises(UserError, match=r"gone\.csv"):
        gather([image, write_boxes(tmp_path / "b.csv", BOXES[:2])], AnnotationOptions(ignore=(str(gone),)))


def test_a_column_that_is_not_there(scene: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match=r"a\.csv has no column 'species'; its columns are"):
        gather(scene, AnnotationOptions(class_column="species"))


def test_names_of_individuals_are_no_classes(tmp_path: Path) -> None:
    image = write_raster(tmp_path / "a.tif", noise(3, 64, 64))
    xy = [(5.5 + 5 * n, 9.5) for n in range(8)]
    points = write_points(tmp_path / "a.csv", xy, name=[f"tree {n}" for n in range(8)])
    gathered = gather([image, points])
    assert set(gathered.sources[0].annotations.label) == {"object"}
    assert any("8 different names" in str(note) for note in gathered.notes)
    named = gather([image, points], AnnotationOptions(class_column="name")).sources
    assert len(set(named[0].annotations.label)) == 8


# -- the contract ------------------------------------------------------------------------------------------


def test_a_contract_chosen_anew(scene: tuple[Path, Path]) -> None:
    sources = gather(scene).sources
    made, notes = contract(sources)
    assert (made.bands, made.unit, made.gsd, made.classes) == (
        ("red", "green", "blue"),
        "m",
        0.5,
        ("shrub",),
    )
    assert notes == ()
    sample = Dataset(sources, made).chip(Spot(0, Window(0, 0, 128, 128)))
    assert np.abs(sample.image.mean(axis=(1, 2))).max() < 0.02
    assert np.abs(sample.image.std(axis=(1, 2)) - 1).max() < 0.02


def test_large_objects_are_seen_smaller(tmp_path: Path) -> None:
    image = write_raster(tmp_path / "a.tif", noise(3, 600, 600), gsd_m=0.1)
    boxes = write_boxes(tmp_path / "a.csv", [(x, 100, x + 96, 196) for x in range(0, 400, 100)])
    sources = gather([image, boxes]).sources
    made, notes = contract(sources)
    assert made.gsd == pytest.approx(0.4)
    assert "9.6 m wide" in str(notes[0])
    assert Dataset(sources, made).statistics().size_px == pytest.approx((24, 24, 24, 24), rel=1e-3)


def test_large_objects_in_pictures_without_a_gsd_are_seen_smaller_too(tmp_path: Path) -> None:
    image = write_raster(tmp_path / "a.tif", noise(3, 600, 600), gsd_m=None)
    boxes = write_boxes(tmp_path / "a.csv", [(x, 100, x + 96, 196) for x in range(0, 400, 100)])
    sources = gather([image, boxes]).sources
    made, notes = contract(sources)
    assert (made.unit, made.gsd) == ("px", 4.0)
    assert "96 px wide" in str(notes[0])
    assert Dataset(sources, made).statistics().size_px == pytest.approx((24, 24, 24, 24), rel=1e-3)
    points = write_points(tmp_path / "points.csv", [(x, 100) for x in range(0, 400, 100)])
    assert contract(gather([image, points]).sources)[0].gsd is None  # any size would do


def test_bands_that_differ(tmp_path: Path) -> None:
    write_raster(tmp_path / "images" / "a.tif", noise(3, 32, 32), gsd_m=None)
    write_raster(tmp_path / "images" / "b.tif", noise(1, 32, 32), gsd_m=None)
    for name in "ab":
        write_points(tmp_path / "points" / f"{name}.csv", [(9.5, 9.5), (20.5, 9.5)])
    sources = gather([tmp_path]).sources
    made, notes = contract(sources)
    assert made.bands == ("red", "green", "blue")  # grey stands for each
    assert tuple(map(str, notes)) == (
        "Bands differ: a.tif has red, green, blue; b.tif has grey; used are red, green, blue.",
    )
    grey = Dataset(sources, plain(unit="px", gsd=None)).chip(Spot(1, Window(0, 0, 32, 32)))
    assert np.array_equal(grey.image[0], grey.image[2])
    with pytest.raises(UserError, match=r"Bands nir, red are needed; b\.tif has grey\."):
        Dataset(sources[1:], plain(("nir", "red"), unit="px"))
    write_raster(tmp_path / "images" / "c.tif", noise(5, 32, 32), gsd_m=None)
    write_points(tmp_path / "points" / "c.csv", [(9.5, 9.5)])
    with pytest.raises(UserError, match=r"no band in common: a\.tif has red.*choose their bands"):
        contract(gather([tmp_path]).sources)


def test_a_size_known_of_some_only(tmp_path: Path) -> None:
    for name, gsd in (("a", 0.5), ("b", None)):
        write_raster(tmp_path / "images" / f"{name}.tif", noise(3, 32, 32), gsd_m=gsd)
        write_points(tmp_path / "points" / f"{name}.csv", [(9.5, 9.5)])
    sources = gather([tmp_path]).sources
    with pytest.raises(UserError, match=r"size of a\.tif is known, but not that of b\.tif; state it"):
        contract(sources)
    with pytest.raises(UserError, match=r"b\.tif has no CRS.*the model works at 0\.5 m"):
        Dataset(sources, plain())


def test_survey_takes_the_percentiles_of_each_raster(tmp_path: Path) -> None:
    for name, gain in (("a", 1), ("b", 4)):
        pixels = noise(1, 64, 64).astype(np.uint16) * gain
        write_raster(tmp_path / "images" / f"{name}.tif", pixels, gsd_m=None)
        write_points(tmp_path / "points" / f"{name}.csv", [(9.5, 9.5), (30.5, 9.5)])
    sources = gather([tmp_path]).sources
    made, _ = contract(sources)
    assert made.scaling.mode == "survey"
    data = Dataset(sources, made)
    one, four = (data.chip(Spot(number, Window(0, 0, 64, 64))).image for number in (0, 1))
    assert np.abs(one - four).max() < 1e-4


def test_the_contract_of_a_card(scene: tuple[Path, Path]) -> None:
    card = Card(
        name="x", detector="heatmap", bands=("red",), unit="um", gsd=5e5, largest=9.0, classes=("shrub",)
    )
    assert input_spec(Contract.of(card), gather(scene).sources[0]).grid.width == 128


# -- places, memory, processes -----------------------------------------------------------------------------


@settings(max_examples=25)
@given(side=st.integers(7, 200), stride=st.integers(5, 60))
def test_places_cover_what_is_known(tmp_path_factory: pytest.TempPathFactory, side: int, stride: int) -> None:
    folder = tmp_path_factory.getbasetemp() / "cover"
    if not folder.exists():
        write_raster(folder / "a.tif", noise(1, 128, 128))
        write_boxes(folder / "a.csv", BOXES)
    data = Dataset(gather([folder / "a.tif", folder / "a.csv"]).sources, plain(("grey",)))
    known = data.chip(Spot(0, Window(0, 0, 128, 128))).known
    covered = np.zeros_like(known)
    for place in data.places(side, min(stride, side)):
        window = place.window.clipped(data.grids[0].window)
        covered[window.y : window.bottom, window.x : window.right] = True
    assert not (known & ~covered).any()


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(3, 30), st.integers(3, 30))
def test_windows_that_boxes_meet_are_those_that_meet_one_by_one(seed: int, size: int, step: int) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.integers(-20, 120, (rng.integers(0, 8), 2)) / 2
    boxes = np.hstack([corner, corner + rng.integers(1, 40, corner.shape) / 2])
    columns, rows = list(range(-7, 50, step)), list(range(3, 40, step))
    met = dataset.met_by_boxes(boxes, columns, rows, size)
    one_by_one = [
        [
            any(shapely.box(x, y, x + size, y + size).intersects(shapely.box(*box)) for box in boxes)
            for x in columns
        ]
        for y in rows
    ]
    assert met.tolist() == one_by_one


def test_a_copy_in_another_process_reads_the_same(
    scene: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Dataset(gather(scene).sources, plain())
    place = Spot(0, Window(3, 5, 40, 40))
    here = data.chip(place)
    there = pickle.loads(pickle.dumps(data)).chip(place)
    assert np.array_equal(here.image, there.image)
    monkeypatch.setattr(os, "getpid", lambda: -1)  # as after a fork
    assert np.array_equal(data.chip(place).image, here.image)


def watched_reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Grows by width and height of each window that is read from now on."""
    reading, read = Raster.read, []

    def watched(self: Raster, window: Window, *rest: Any) -> Any:
        read.append((window.width, window.height))
        return reading(self, window, *rest)

    monkeypatch.setattr(Raster, "read", watched)
    return read


def test_large_rasters_are_read_window_by_window(
    scene: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = gather(scene).sources
    place = Spot(0, Window(-3, 5, 40, 140))
    kept = Dataset(sources, plain()).chip(place)
    monkeypatch.setattr("ecodetect.annotations.dataset.KEPT_RASTER_PX", 100)
    read = watched_reads(monkeypatch)
    assert np.array_equal(Dataset(sources, plain()).chip(place).image, kept.image)
    assert read == [(40, 140)]


def open_files(folder: Path) -> set[str]:
    return {file.path for file in psutil.Process().open_files() if Path(file.path).is_relative_to(folder)}


def test_few_rasters_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecodetect.annotations.dataset.OPEN_RASTERS", 2)
    monkeypatch.setattr("ecodetect.annotations.dataset.KEPT_BYTES", 3 * 48 * 48 * 2)
    folder_of_images(tmp_path / "images")
    for name, points in POINTS.items():
        write_points(tmp_path / "points" / f"{name}.csv", points)
    data = Dataset(gather([tmp_path]).sources, plain(classes=("object",)))
    read = watched_reads(monkeypatch)
    places = data.places(48)
    for _ in range(2):
        for place in places:
            data.chip(place)
    assert len(read) == 2 * len({place.source for place in places})  # none is kept until its turn comes again
    assert len(open_files(tmp_path)) == 2
    data.close()
    assert not open_files(tmp_path)


def test_statistics(scene: tuple[Path, Path]) -> None:
    found = Dataset(gather(scene).sources, plain()).statistics()
    assert (found.images, found.objects, found.per_class, found.sized) == (1, 4, {"shrub": 4}, 4)
    assert found.size_px is not None
    assert found.size_px[3] == pytest.approx(np.sqrt(24 * 20))
    assert found.spacing_px is not None


@pytest.mark.parametrize(
    ("size", "chosen"), [(4, 0.33), (14, 0.33), (18, 0.38), (22, 0.5), (30, 0.5), (72, 1.5)]
)
def test_small_objects_are_read_finer_and_large_ones_coarser(
    tmp_path: Path, size: int, chosen: float
) -> None:
    """About 24 px is right, half again as fine as the raster the limit, and nearly right is left alone."""
    raster = write_raster(tmp_path / "scene.tif", noise(1, 256, 256))  # of 0.5 m
    boxes = [(x, y, x + size, y + size) for x in (10, 90, 170) for y in (10, 90, 170)]
    sources = gather([raster, write_boxes(tmp_path / "a.csv", boxes)]).sources
    made, notes = contract(sources)
    assert made.gsd == chosen
    assert bool(notes) == (chosen != 0.5)


def test_outside_the_complete_ground_nothing_is_learned(scene: tuple[Path, Path], tmp_path: Path) -> None:
    """As `evaluate` judges nothing outside its area; a raster that the polygons don't meet is left alone."""
    image, boxes = scene
    grid = open_raster(image).grid
    plot = Layer(np.array([shapely.box(0, 0, 64, 64)]), grid=grid)
    formats.write(tmp_path / "plot.gpkg", Stream([plot], "Polygon", {}, grid=grid))
    asked = AnnotationOptions(complete=str(tmp_path / "plot.gpkg"))
    gathered = gather([image, boxes], asked)
    (source,) = gathered.sources
    assert source.kept.tolist() == [True, False, False, False]
    (note,) = [note for note in gathered.notes if note.code == "outside-complete"]
    assert note.text.startswith("3 of 4 annotations lie outside")
    sample = Dataset([source], plain()).chip(Spot(0, Window(0, 0, 128, 128)))
    assert sample.objects.xy.tolist() == [[20.0, 18.0]]
    assert not sample.known[90:, 70:].any()

    far = write_raster(tmp_path / "far.tif", noise(3, 128, 128), shift_m=(500.0, 0.0))
    both = gather([image, boxes, far, write_boxes(tmp_path / "b.csv", BOXES)], asked).sources
    assert [int(each.kept.sum()) for each in both] == [1, 0]
    assert both[1].complete_by == "nothing"

    other = write_boxes(tmp_path / "c.csv", BOXES[1:])
    with pytest.raises(UserError, match=r"None of the 3 annotations lies inside the polygons"):
        gather([image, other], asked)
