"""Training never sees ground that validation sees, whatever the files; the same seed gives the same split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyproj import CRS
from training_sets import noise, write_points, write_raster

from ecodetect.annotations.annotated_raster import AnnotatedRaster
from ecodetect.annotations.contract import Contract, contract
from ecodetect.annotations.dataset import Dataset, Spot
from ecodetect.annotations.laid import Ground
from ecodetect.annotations.laying import on_raster
from ecodetect.annotations.places import places
from ecodetect.annotations.sources import gather
from ecodetect.annotations.splits import Split, check_disjoint, split
from ecodetect.bundle.footprint import cells, known_there
from ecodetect.errors import UserError
from ecodetect.grid import Affine6, Floats, Grid, Window
from ecodetect.layer import Layer
from ecodetect.region import Region

UTM30 = CRS.from_epsg(32630)
HERE = (562000.0, 4076200.0)


def source(
    xy: Floats, grid: Grid, name: str = "a.tif", labels: list[str] | None = None, **columns: list[str]
) -> AnnotatedRaster:
    """A source without a file: annotated all over, points without a size."""
    values = {key: np.array(value, dtype=object) for key, value in columns.items()}
    values["label"] = np.array(labels or ["tree"] * len(xy), dtype=object)
    layer = Layer(shapely.points(np.asarray(xy, np.float64).reshape(-1, 2)), values, grid=grid)
    marked = on_raster(layer, grid, name=name)
    whole = shapely.box(0, 0, grid.width, grid.height)
    nothing = np.empty(0, dtype=object)
    return AnnotatedRaster(
        f"/{name}",
        name,
        grid,
        ("grey",),
        "uint8",
        (None, None),
        marked,
        Region(whole, grid),
        "image",
        nothing,
    )


def scattered(count: int, side: float, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).uniform(0, side, (count, 2))


def utm(gsd: float, x: float = 0.0, y: float = 0.0, side: int = 200, turn: float = 0.0) -> Grid:
    """A grid `x`, `y` metres east and south of a place in Spain."""
    cos, sin = np.cos(turn), np.sin(turn)
    transform: Affine6 = (gsd * cos, gsd * sin, HERE[0] + x, gsd * sin, -gsd * cos, HERE[1] - y)
    return Grid(side, side, transform, UTM30)


def seen_pixels(ground: Ground, grid: Grid) -> np.ndarray:
    mask = ground.seen.mask(grid.window)
    return np.ones((grid.height, grid.width), bool) if mask is None else mask


def assert_no_place_is_seen_twice(sources: list[AnnotatedRaster], found: Split) -> None:
    """Pixel centres that training sees don't lie in what validation sees, on the ground."""
    for number, ground in found.training.items():
        grid = sources[number].grid
        rows, columns = np.nonzero(seen_pixels(ground, grid))
        world = grid.to_world(np.column_stack([columns + 0.5, rows + 0.5]))
        for other, there in found.validation.items():
            own = sources[other].grid
            if own.crs is None and other != number:
                continue
            xy = own.to_pixel(world)
            inside = own.window.owns(xy)
            # A hair at the shared edge: lines of one map bend in another.
            margin = there.seen.shape.buffer(-0.5)
            assert not shapely.intersects_xy(margin, xy[inside, 0], xy[inside, 1]).any()
            if other == number:
                assert not there.seen.contains(xy).any()


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(
    count=st.integers(2, 60),
    seed=st.integers(0, 5),
    gsd=st.sampled_from([0.1, 0.5, 3.0]),
    shift=st.tuples(st.floats(-1.2, 1.2), st.floats(-1.2, 1.2)),
    turn=st.sampled_from([0.0, 0.3]),
    by=st.sampled_from(["auto", "blocks", "files"]),
)
def test_no_place_is_on_both_sides(
    count: int, seed: int, gsd: float, shift: tuple[float, float], turn: float, by: str
) -> None:
    """Two rasters that may overlap, of other GSD, turned against each other."""
    side = 200 * gsd
    grids = [utm(gsd), utm(gsd * 1.5, shift[0] * side, shift[1] * side, turn=turn)]
    sources = [
        source(scattered(count, 200, seed), grids[0], "a.tif"),
        source(scattered(count, 200, seed + 1), grids[1], "b.tif"),
    ]
    try:
        found = split(sources, by=by, seed=seed)
    except UserError:  # too few, or all in one place: nothing is better than a split that leaks
        return
    assert_no_place_is_seen_twice(sources, found)
    training, validation, between = found.objects
    assert training > 0
    assert validation > 0
    assert training + validation + between == 2 * count


@pytest.mark.parametrize("by", ["blocks", "files"])
def test_one_raster_under_two_names_is_one_place(by: str) -> None:
    twice = [source(scattered(50, 200), utm(0.5), name) for name in ("a.tif", "copy.tif")]
    if by == "files":
        with pytest.raises(UserError, match="all overlap"):
            split(twice, by=by)
        return
    found = split(twice, by=by)
    assert_no_place_is_seen_twice(twice, found)
    assert found.objects[0] % 2 == found.objects[1] % 2 == 0


def test_overlapping_ground_is_refused_naming_both() -> None:
    sources = [source(scattered(9, 200), utm(0.5, x), name) for x, name in ((0, "a.tif"), (60, "b.tif"))]
    whole = [Region(shapely.box(0, 0, 200, 200), each.grid) for each in sources]
    found = Split({0: Ground(whole[0], whole[0])}, {1: Ground(whole[1], whole[1])}, "by hand", (9, 9, 0))
    with pytest.raises(UserError, match=r"overlap on the ground, in a\.tif and b\.tif;"):
        check_disjoint(sources, found)
    beside = [source(scattered(9, 200), utm(0.5, x), name) for x, name in ((0, "a.tif"), (100, "b.tif"))]
    check_disjoint(beside, found)  # they share an edge
    same = Split({0: Ground(whole[0], whole[0])}, {0: Ground(whole[0], whole[0])}, "by hand", (9, 9, 0))
    with pytest.raises(UserError, match=r"in a\.tif;"):
        check_disjoint(sources, same)


def test_the_strip_keeps_individuals_whole() -> None:
    """Training sees no pixel of an object that validation counts."""
    grid = utm(0.5, side=400)
    boxes = np.array([shapely.box(x - 8, y - 8, x + 8, y + 8) for x, y in scattered(60, 400)])
    made = source(scattered(60, 400), grid)
    marked = on_raster(Layer(boxes, grid=grid), grid, name="a")
    sized = AnnotatedRaster(
        "/a", "a", grid, ("grey",), "uint8", (None, None), marked, made.complete, "image", made.ignored
    )
    found = split([sized], by="blocks")
    counted = found.validation[0].counted.contains(sized.xy)
    assert counted.sum() == found.objects[1]
    assert not shapely.intersects(found.training[0].seen.shape.buffer(-1e-6), boxes[counted]).any()


def test_the_same_seed_the_same_split() -> None:
    sources = [
        source(scattered(80, 200, number), utm(0.5, 200.0 * number), f"{number}") for number in range(3)
    ]
    one, two, other = split(sources, seed=3), split(sources, seed=3), split(sources, seed=4)
    assert one.objects == two.objects
    for number, ground in one.validation.items():
        assert ground.seen.shape.equals(two.validation[number].seen.shape)
    assert any(
        number not in other.validation or not ground.seen.shape.equals(other.validation[number].seen.shape)
        for number, ground in one.validation.items()
    )


def test_many_files_are_split_by_file_with_each_class_on_both_sides() -> None:
    sources = [
        source(scattered(10, 200), utm(0.5, 150.0 * n), f"{n}", ["rare" if n % 4 == 0 else "tree"] * 10)
        for n in range(20)
    ]
    found = split(sources)
    assert found.method == "by file, seed 0"
    assert set(found.training) | set(found.validation) == set(range(20))
    assert not set(found.training) & set(found.validation)
    assert found.objects == (160, 40, 0)
    assert {n % 4 == 0 for n in found.validation} == {True, False}


def test_overlapping_files_go_together() -> None:
    sources = [source(scattered(10, 200), utm(0.5, 95.0 * n), f"{n}") for n in range(2)]
    sources += [source(scattered(10, 200), utm(0.5, 500.0 + 150 * n), f"far {n}") for n in range(12)]
    for seed in range(6):
        found = split(sources, seed=seed)
        assert ({0, 1} <= set(found.training)) != ({0, 1} <= set(found.validation))


def test_a_pattern_names_the_rasters_of_validation() -> None:
    sources = [source(scattered(10, 200), utm(0.5, 95.0 * n), f"{n}/val/a.tif") for n in range(2)]
    sources += [source(scattered(10, 200), utm(0.5, 500.0 + 150 * n), f"{n}/train/a.tif") for n in range(3)]
    found = split(sources, by="*/val/*")
    assert set(found.validation) == {0, 1}
    assert found.method == "by file, validation */val/*, seed 0"
    # Half of the first lies under the second: both are for validation.
    assert set(split(sources, by="/0/val*").validation) == {0, 1}
    with pytest.raises(UserError, match=r"split '\*/test/\*' divides nothing: none of the 5 rasters' paths"):
        split(sources, by="*/test/*")


def test_by_column_values_stay_together() -> None:
    xy = scattered(60, 200)
    plots = ["north" if y < 60 else "south" if y > 140 else "middle" for _, y in xy]
    one = source(xy, utm(0.5), plot=plots)
    found = split([one], by="plot")
    held = found.validation[0].counted.contains(one.xy)
    assert len({plot for plot, inside in zip(plots, held, strict=True) if inside}) == 1
    assert_no_place_is_seen_twice([one], found)
    said = ["val" if y < 60 else "train" for _, y in xy]
    obeyed = split([source(xy, utm(0.5), part=said)], by="part")
    assert obeyed.objects[1] == said.count("val")
    files = [source(scattered(5, 200), utm(0.5, 150.0 * n), f"{n}", city=[f"c{n % 3}"] * 5) for n in range(6)]
    by_city = split(files, by="city", share=1 / 3)
    assert {n % 3 for n in by_city.validation}.isdisjoint({n % 3 for n in by_city.training})
    with pytest.raises(UserError, match=r"of a\.tif have no column 'site' to split by, only plot, label"):
        split([source(xy, utm(0.5), plot=plots)], by="site")
    with pytest.raises(UserError, match=r"'plot' has one value \('x'\)"):
        split([source(xy, utm(0.5), plot=["x"] * 60)], by="plot")


def test_too_little_is_said() -> None:
    with pytest.raises(UserError, match="There is one annotation to learn from"):
        split([source(np.array([[5.0, 5.0]]), utm(0.5))])
    with pytest.raises(UserError, match="There is no annotation"):
        split([source(np.empty((0, 2)), utm(0.5))])
    with pytest.raises(UserError, match="too close together"):
        split([source(np.full((5, 2), 50.0), utm(0.5))])
    two = [source(np.array([[5.0, 5.0], [190.0, 190.0]]), utm(0.5))]
    assert split(two).objects == (1, 1, 0)
    near = np.array([[15.0, 15.0], [50.0, 50.0]])
    assert split([source(near, utm(0.5))]).objects[:2] == (1, 1)
    parts = ["train"] * 5 + ["val"]
    far = source(np.vstack([scattered(5, 100), [[150.0, 150.0]]]), utm(0.5), part=parts)
    assert split([far], by="part").objects[1] == 1


def test_rasters_without_a_place_cannot_overlap() -> None:
    sources = [source(scattered(20, 64), Grid(64, 64), f"{n}.png") for n in range(12)]
    assert split(sources).method == "by file, seed 0"
    found = split(sources[:2], by="blocks")
    assert_no_place_is_seen_twice(sources[:2], found)


def test_across_the_antimeridian() -> None:
    crs = CRS.from_epsg(32601)
    transform: Affine6 = (30.0, 0.0, 300_000.0, 0.0, -30.0, 6_000_000.0)
    west = Grid(200, 200, transform, crs)
    lonlat = west.to_lonlat([(0.0, 0.0)])[0]
    degrees = 0.0005
    east = Grid(400, 400, (degrees, 0.0, 179.9, 0.0, -degrees, float(lonlat[1])), CRS.from_epsg(4326))
    sources = [source(scattered(40, 200), west, "a"), source(scattered(40, 400), east, "b")]
    found = split(sources, by="blocks")
    assert min(found.objects[:2]) > 5


# -- samples of a side -------------------------------------------------------------------------------------


def both_sides(folder: Path) -> tuple[Dataset, Dataset, Contract]:
    image = write_raster(folder / "a.tif", noise(1, 300, 300))
    sources = gather([image, write_points(folder / "a.csv", (scattered(80, 295) + 2).tolist())]).sources
    gsd = sources[0].grid.gsd
    made, _ = contract(sources, gsd=None if gsd is None else gsd[0])  # at the raster's own pixels
    found = split(sources)
    data = Dataset(sources, made)
    return data.limited(found.training), data.limited(found.validation), made


def test_a_sample_is_blind_on_the_other_sides_ground(tmp_path: Path) -> None:
    training, validation, made = both_sides(tmp_path)
    place = Spot(0, Window(0, 0, 300, 300))
    one, two = training.chip(place), validation.chip(place)
    assert not (one.valid & two.valid).any()
    assert (one.image[:, ~one.valid] == made.fill).all()
    assert (one.valid | two.valid).all()
    # What is seen but doesn't count is ignored; so is what stands there.
    assert (two.valid & two.ignored).any()
    for sample in (one, two):
        x, y = sample.objects.xy.astype(int).T
        assert sample.valid[y, x].all()
    assert len(one.objects) + len(two.objects) <= 80
    for places_of in (training.places(64), validation.places(64)):
        assert places_of
    seen = np.zeros((2, 300, 300), bool)
    for number, side in enumerate((training, validation)):
        for each in side.places(64):
            window = each.window.clipped(Window(0, 0, 300, 300))
            valid = side.chip(Spot(0, window)).valid
            seen[number, window.y : window.bottom, window.x : window.right] |= valid
    assert not seen.all(axis=0).any()


# -- where -------------------------------------------------------------------------------------------------


def test_places_are_coarse_unless_asked() -> None:
    one = source(scattered(30, 200), utm(0.5))
    (cell,) = places([one])
    assert cell == [round(cell[0], 2), round(cell[1], 2)]
    lonlat = one.grid.to_lonlat(one.xy)
    assert known_there([{"places": [cell]}], lonlat).all()
    assert not known_there([{"places": [cell]}], lonlat + 0.05).any()
    assert not known_there([{"name": "x"}], lonlat).any()
    (extent,) = places([one], exact=True)
    assert extent == pytest.approx([*lonlat.min(axis=0), *lonlat.max(axis=0)], abs=1e-6)
    assert places([source(scattered(3, 50), Grid(64, 64))]) == []


@given(st.lists(st.tuples(st.floats(-180, 180), st.floats(-90, 90)), max_size=20))
def test_every_position_is_in_a_cell(positions: list[tuple[float, float]]) -> None:
    lonlat = np.array(positions, np.float64).reshape(-1, 2)
    assert known_there([{"places": cells(lonlat)}], lonlat).all()


def test_folders_called_train_and_val_are_obeyed(tmp_path: Path) -> None:
    for side, count in (("train", 3), ("val", 2)):
        for number in range(count):
            name = f"{side}{number}"
            write_raster(tmp_path / side / "images" / f"{name}.tif", noise(1, 64, 64), gsd_m=None)
            write_points(tmp_path / side / "points" / f"{name}.csv", [(10.5, 10.5), (40.5, 30.5)])
    found = split(gather([tmp_path]).sources)
    assert found.method == "by folder, seed 0"
    assert found.objects == (6, 4, 0)
