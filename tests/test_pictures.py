"""Pictures: what is drawn is where it belongs, in bounded memory, with the same bytes each time."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from memory_raster import MemoryRaster
from PIL import Image
from pyproj import CRS

from ecodetect.chip import Chip
from ecodetect.detections import Detections
from ecodetect.errors import UserError
from ecodetect.grid import Affine6, Grid, Window
from ecodetect.pictures.background import READ_PX
from ecodetect.pictures.choice import chosen
from ecodetect.pictures.colours import PALETTE
from ecodetect.pictures.frame import MARGIN, scale_bar
from ecodetect.pictures.lettering import distance_in_words, fitted, font_of
from ecodetect.pictures.look import Stretch
from ecodetect.pictures.map import draw_map
from ecodetect.pictures.marks import HEAD
from ecodetect.pictures.sheet import CUTOUT_PX, draw_sheet
from ecodetect.raster.reading import open_raster
from ecodetect.raster.resampling import axis, resample
from ecodetect.region import Region

RGB = ("red", "green", "blue")
UTM = CRS.from_epsg(32630)


@dataclass
class ResampledRaster(MemoryRaster):
    """An array that can be read at any GSD, as a Raster is; the blocks in `absent` were never written."""

    absent: Window | None = None

    def is_empty(self, window: Window) -> bool:
        return self.absent is not None and window.clipped(self.absent) == window

    def samples(self, grid: Grid, bands: Any, area: Window | None = None, most: int = 256) -> list[Chip]:
        return [super().read(self.grid.window if area is None else area, bands)]

    def read(self, window: Window, bands: Any, grid: Grid | None = None) -> Chip:
        grid = grid or self.grid
        if grid == self.grid:
            return super().read(window, bands)
        self.reads.append(window)
        a, _, _, _, e, _ = self.grid.pixels_from(grid)
        rows, columns = (
            axis(window.y, window.height, e, self.grid.height),
            axis(window.x, window.width, a, self.grid.width),
        )
        part = Window(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
        chip = super().read(part, bands)
        self.reads.pop()
        made, valid = resample(chip.pixels, chip.valid, rows.from_source(part.y), columns.from_source(part.x))
        return Chip(made, valid, tuple(bands), window, grid.crop(window))


def raster_of(
    pixels: Any,
    bands: tuple[str, ...] = RGB,
    *,
    transform: Affine6 | None = None,
    crs: CRS | None = None,
    **more: Any,
) -> ResampledRaster:
    height, width = pixels.shape[1:]
    grid = Grid(width, height, transform, crs) if transform else Grid(width, height)
    return ResampledRaster(pixels, grid, bands, **more)


def ordinary(height: int, width: int) -> Any:
    """8-bit RGB with full contrast, the same each time."""
    return np.random.default_rng(7).integers(0, 256, (3, height, width), np.uint8)


def grey(height: int, width: int) -> Any:
    """RGB of one grey, with full contrast in the last row only."""
    pixels = np.full((3, height, width), 90, np.uint8)
    pixels[:, -1, : width // 2], pixels[:, -1, width // 2 :] = 0, 255
    return pixels


def boxes(
    grid: Grid, corners: Any, score: Any = None, label: Any = None, classes: Sequence[str] = ("shrub",)
) -> Detections:
    geometry = np.asarray(corners, np.float64).reshape(-1, 4)
    n = len(geometry)
    scores = np.linspace(1, 0, n) if score is None else np.asarray(score, np.float64)
    labels = np.zeros(n, np.int64) if label is None else np.asarray(label, np.int64)
    return Detections(grid, "box", geometry, scores, labels, tuple(classes))


def points(grid: Grid, xy: Any, score: Any = None) -> Detections:
    geometry = np.asarray(xy, np.float64).reshape(-1, 2)
    n = len(geometry)
    scores = np.full(n, 0.5) if score is None else np.asarray(score, np.float64)
    return Detections(grid, "point", geometry, scores, np.zeros(n, np.int64), ("tree",))


def seen(path: Path, size: tuple[int, int], top: int = MARGIN) -> Any:
    """The map of a picture, (height, width, 3), without the paper around."""
    width, height = size
    return np.asarray(Image.open(path).convert("RGB"))[top : top + height, MARGIN : MARGIN + width].astype(
        int
    )


def near_colour(image: Any, colour: tuple[int, int, int]) -> Any:
    return np.abs(image - np.array(colour)).max(axis=2) < 40


# -- the map -----------------------------------------------------------------------------------------------


def test_ordinary_pixels_are_shown_as_they_are(tmp_path: Path) -> None:
    pixels = ordinary(1500, 800)
    draw_map(raster_of(pixels), [], tmp_path / "map.png")
    assert (seen(tmp_path / "map.png", (800, 1500)) == pixels.transpose(1, 2, 0)).all()


def test_small_rasters_are_enlarged_by_whole_pixels(tmp_path: Path) -> None:
    pixels = ordinary(40, 100)
    draw_map(raster_of(pixels), [], tmp_path / "map.png")
    shown = seen(tmp_path / "map.png", (1400, 560))
    assert (shown[::14, ::14] == pixels.transpose(1, 2, 0)).all()
    assert (shown[13::14, 13::14] == pixels.transpose(1, 2, 0)).all()


def test_a_box_is_drawn_on_its_edges(tmp_path: Path) -> None:
    raster = raster_of(grey(1500, 1500))
    draw_map(raster, [boxes(raster.grid, (300, 500, 700, 600))], tmp_path / "map.png")
    y, x = np.nonzero(near_colour(seen(tmp_path / "map.png", (1500, 1500)), PALETTE[0]))
    assert (x.min() + x.max() + 1) / 2 == pytest.approx(500, abs=0.5)
    assert (y.min() + y.max() + 1) / 2 == pytest.approx(550, abs=0.5)
    assert x.max() + 1 - x.min() == pytest.approx(402, abs=3)
    assert not ((x > 310) & (x < 690) & (y > 510) & (y < 590)).any()  # an outline, not a patch


def test_a_reduced_map_keeps_objects_in_place(tmp_path: Path) -> None:
    raster = raster_of(grey(1000, 3000))
    outline = shapely.Polygon(
        [(1000, 200), (2000, 200), (2000, 800), (1000, 800)], [[(1300, 400), (1500, 400), (1400, 600)]]
    )
    found = Detections(
        raster.grid,
        "polygon",
        np.array([outline], dtype=object),
        np.ones(1),
        np.zeros(1, np.int64),
        ("pond",),
    )
    draw_map(raster, [found], tmp_path / "map.png", largest_side_px=600)
    marked = near_colour(seen(tmp_path / "map.png", (600, 200)), PALETTE[0])
    y, x = np.nonzero(marked)
    assert (x.min(), x.max() + 1) == pytest.approx((200, 400), abs=2)
    assert (y.min(), y.max() + 1) == pytest.approx((40, 160), abs=2)
    assert marked[79:82, 265:295].any()  # the hole's edge


def test_objects_too_small_to_outline_become_dots_in_place(tmp_path: Path) -> None:
    raster = raster_of(grey(4000, 4000))
    draw_map(
        raster, [boxes(raster.grid, (2000, 1000, 2008, 1008))], tmp_path / "map.png", largest_side_px=800
    )
    y, x = np.nonzero(near_colour(seen(tmp_path / "map.png", (800, 800)), PALETTE[0]))
    assert (x.mean() + 0.5, y.mean() + 0.5) == pytest.approx((400.8, 200.8), abs=0.6)
    assert 9 <= len(x) <= 40


def test_classes_have_their_colours_and_the_stream_may_be_cut_anywhere(tmp_path: Path) -> None:
    raster = raster_of(grey(1450, 1450))
    rng = np.random.default_rng(1)
    corner = rng.uniform(0, 1400, (300, 2))
    found = boxes(
        raster.grid, np.hstack([corner, corner + 30]), label=np.arange(300) % 2, classes=("live", "dead")
    )
    draw_map(raster, [found], tmp_path / "one.png")
    draw_map(raster, (found[i : i + 7] for i in range(0, 300, 7)), tmp_path / "many.png")
    shown = seen(tmp_path / "one.png", (1450, 1450))
    assert near_colour(shown, PALETTE[0]).sum() > 5000 < near_colour(shown, PALETTE[1]).sum()
    assert (
        np.asarray(Image.open(tmp_path / "many.png")) == np.asarray(Image.open(tmp_path / "one.png"))
    ).mean() > 0.999


@pytest.mark.parametrize("name", ["map.png", "map.jpg"])
def test_the_same_bytes_each_time(tmp_path: Path, name: str) -> None:
    raster = raster_of(ordinary(300, 400))
    contents = []
    for _ in range(2):
        draw_map(
            raster,
            [points(raster.grid, [(20, 30), (200, 100)])],
            tmp_path / name,
            title="Twice",
            info="threshold",
        )
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_no_data_is_paper(tmp_path: Path) -> None:
    valid = np.ones((800, 800), bool)
    valid[:400] = False
    draw_map(raster_of(np.zeros((3, 800, 800), np.uint8), valid=valid), [], tmp_path / "map.png")
    shown = seen(tmp_path / "map.png", (800, 800))
    assert shown[:400].min() > 230
    assert shown[400:].max() == 0


def test_blocks_never_written_are_not_read(tmp_path: Path) -> None:
    raster = raster_of(ordinary(6000, 6000), absent=Window(0, 0, 6000, 3000), block_shape=(500, 500))
    draw_map(raster, [], tmp_path / "map.png", largest_side_px=600)
    assert seen(tmp_path / "map.png", (600, 600))[:200].min() > 230
    assert sum(window.area for window in raster.reads if window.width < 600) < 600 * 600
    # However large the raster, pieces of it are read: whole blocks, of bounded size.
    assert max(window.area for window in raster.reads if window.width < 600) * 100 <= READ_PX


def test_only_the_area_of_interest_is_read_and_shown(tmp_path: Path) -> None:
    raster = raster_of(grey(3000, 3000), transform=(0.1, 0, 600_000, 0, -0.1, 4_000_000), crs=UTM)
    area = Region(shapely.box(1000, 1000, 1400, 1200), raster.grid)
    draw_map(raster, [], tmp_path / "map.png", area=area)
    assert all(w.x >= 970 and w.right <= 1430 and w.bottom <= 1230 for w in raster.reads)
    shown = seen(tmp_path / "map.png", (440 * 3, 240 * 3))
    assert (shown[360, 660] == 90).all()
    assert (shown[360, 10] > 150).all()  # faded


def test_pixels_are_square_on_the_ground(tmp_path: Path) -> None:
    raster = raster_of(ordinary(400, 400), transform=(1e-5, 0, 25, 0, -1e-5, 60), crs=CRS.from_epsg(4326))
    draw_map(raster, [], tmp_path / "map.png")
    image = Image.open(tmp_path / "map.png")
    left = np.asarray(image)[MARGIN : MARGIN + 100, :, :].min(axis=(0, 2)) < 200
    ground = raster.grid.gsd
    assert ground is not None
    assert left.sum() / (400 * 3) == pytest.approx(ground[0] / ground[1], abs=0.02)


def test_an_arrow_where_north_is_not_up(tmp_path: Path) -> None:
    turned = math.radians(30)
    c, s = 0.1 * math.cos(turned), 0.1 * math.sin(turned)
    draw_map(
        raster_of(grey(1450, 1450), transform=(c, s, 6e5, s, -c, 4e6), crs=UTM), [], tmp_path / "turned.png"
    )
    draw_map(
        raster_of(grey(1450, 1450), transform=(0.1, 0, 6e5, 0, -0.1, 4e6), crs=UTM), [], tmp_path / "up.png"
    )
    assert seen(tmp_path / "turned.png", (1450, 200))[:, 1200:].max() > 200
    assert (seen(tmp_path / "up.png", (1450, 200)) == 90).all()


def test_the_stream_is_not_held(tmp_path: Path) -> None:
    raster = raster_of(grey(500, 500))
    rng = np.random.default_rng(0)
    alive: list[weakref.ref[Any]] = []
    most = 0

    def stream() -> Iterator[Detections]:
        nonlocal most
        for _ in range(100):
            xy = rng.uniform(0, 500, (1000, 2))
            alive.append(weakref.ref(xy))
            most = max(most, sum(ref() is not None for ref in alive))
            yield points(raster.grid, xy)
            del xy

    draw_map(raster, stream(), tmp_path / "map.png")
    assert len(alive) == 100
    assert most <= HEAD // 1000 + 3


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 2), (33, 7)])
def test_rasters_of_any_shape(tmp_path: Path, shape: tuple[int, int]) -> None:
    raster = raster_of(np.full((1, *shape), 9, np.uint8), ("grey",))
    draw_map(raster, [points(raster.grid, (0.5, 0.5))], tmp_path / "map.png", title="A title")
    draw_sheet(raster, [points(raster.grid, (0.5, 0.5))], tmp_path / "sheet.png")
    assert Image.open(tmp_path / "map.png").size[0] < 1800


def test_many_classes_and_long_words_stay_on_the_paper(tmp_path: Path) -> None:
    raster = raster_of(ordinary(300, 300))
    classes = [f"a rather long name of species {i}" for i in range(40)]
    found = boxes(
        raster.grid, [(i, i, i + 20, i + 20) for i in range(40)], label=np.arange(40), classes=classes
    )
    draw_map(raster, [found], tmp_path / "map.png", title="t" * 500, info="i" * 500)
    image = np.asarray(Image.open(tmp_path / "map.png"))
    assert (image[:, :MARGIN] == 255).all()
    assert (image[:, -MARGIN:] == 255).all()


def test_a_file_is_drawn(tmp_path: Path, sample_data: Path) -> None:
    with open_raster(sample_data / "dryland.tif") as raster:
        found = points(raster.grid, [(616.5, 9.0), (891.0, 25.2)])
        draw_map(raster, [found], tmp_path / "map.png", largest_side_px=600, title="Dryland")
        draw_sheet(raster, [found], tmp_path / "sheet.png")
    assert Image.open(tmp_path / "map.png").size[0] == 600 + 2 * MARGIN
    assert np.asarray(Image.open(tmp_path / "sheet.png")).std() > 10


# -- values to colours -------------------------------------------------------------------------------------


def test_deep_values_are_stretched_and_said(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.linspace(1000, 3000, 1000).astype(np.uint16), (1, 800, 1000))
    raster = raster_of(ramp, ("band1",))
    draw_map(raster, [], tmp_path / "map.png")
    shown = seen(tmp_path / "map.png", (1000, 800))
    assert (shown[0, 0] == 0).all()
    assert (shown[0, -1] == 255).all()
    assert shown[0, 500, 0] == pytest.approx(127, abs=2)
    look = Stretch.of(raster, None)
    assert (look.low[0], look.high[0]) == pytest.approx((1010, 2990), abs=3)
    assert look.described == f"contrast stretched: {look.low[0]:.4g} to {look.high[0]:.4g}"


def test_dull_pictures_are_stretched_with_their_hues_kept() -> None:
    pixels = np.stack([np.full((50, 50), v, np.uint8) for v in (20, 40, 30)])
    pixels[:, :25] += 20
    look = Stretch.of(raster_of(pixels), None)
    assert set(look.low) == {20.0}
    assert set(look.high) == {60.0}


def test_not_a_number_is_no_data(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 800 * 800, dtype=np.float32).reshape(1, 800, 800)
    values[:, 300:500] = np.nan
    values[:, 600:] = np.inf
    draw_map(raster_of(values, ("band1",)), [], tmp_path / "map.png")
    shown = seen(tmp_path / "map.png", (800, 800))
    assert shown[300:500].min() > 230
    assert shown[600:].min() > 230
    assert shown[:300].max() < 255


def test_a_mask_shows_its_rare_ones(tmp_path: Path) -> None:
    values = np.zeros((1, 800, 800), np.uint8)
    values[0, 10, 10] = 1
    draw_map(raster_of(values, ("band1",)), [], tmp_path / "map.png")
    shown = seen(tmp_path / "map.png", (800, 800))
    assert shown[10, 10].tolist() == [255, 255, 255]
    assert shown.sum() == 3 * 255


@pytest.mark.parametrize(
    ("bands", "shown"),
    [
        (("red", "green", "blue", "nir"), RGB),
        (("nir", "blue", "green", "red"), RGB),
        (("grey",), ("grey",)),
        (("nir", "red", "green"), ("nir", "red", "green")),
        (("band1", "band2"), ("band1",)),
        (("band1", "band2", "band3", "band4"), ("band1", "band2", "band3")),
    ],
)
def test_which_bands_are_shown(bands: tuple[str, ...], shown: tuple[str, ...]) -> None:
    look = Stretch.of(raster_of(np.resize(ordinary(8, 8), (len(bands), 8, 8)), bands), None)
    assert look.bands == shown
    false_colour = len(shown) == 3 and shown != RGB
    assert look.described == (f"{', '.join(shown)} shown as red, green, blue" if false_colour else None)


# -- scale, text, files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metres", "words"),
    [
        (2000, "2 km"),
        (1000, "1 km"),
        (50, "50 m"),
        (1, "1 m"),
        (0.2, "20 cm"),
        (0.005, "5 mm"),
        (2e-5, "20 um"),
    ],
)
def test_distances_in_words(metres: float, words: str) -> None:
    assert distance_in_words(metres) == words


@given(st.floats(1e-7, 1e7))
def test_the_scale_bar_is_round_and_as_long_as_it_says(gsd: float) -> None:
    length, words = scale_bar(Grid(1600, 900, stated_gsd=(gsd, gsd)), 1.0, 1600)
    number, unit = words.split()
    metres = float(number) * {"km": 1e3, "m": 1, "cm": 1e-2, "mm": 1e-3, "um": 1e-6}[unit]
    assert length == pytest.approx(metres / gsd, abs=0.51)
    assert 100 <= length <= 301
    assert number.strip("0.")[:1] in "125"


def test_without_a_gsd_the_scale_bar_is_in_pixels_of_the_raster() -> None:
    assert scale_bar(Grid(1600, 900), 12.5, 1600) == (160, "2000 px")


@pytest.mark.parametrize(
    ("text", "plain"), [("Árbol – 2×", "Arbol - 2x"), ("日本", "??"), ("shrub", "shrub")]
)
def test_text_is_written_in_letters_that_the_font_has(text: str, plain: str) -> None:
    assert fitted(text, font_of(16), 1000) == plain


@pytest.mark.parametrize("draw", [draw_map, draw_sheet])
def test_unusable_paths_are_refused_before_anything_is_read(tmp_path: Path, draw: Any) -> None:
    raster = raster_of(ordinary(20, 20))
    for path, words in (
        (tmp_path / "map.gif", r"map\.gif .* \.png or \.jpg, not '\.gif'"),
        (tmp_path / "map", "not ''"),
        (tmp_path / "nowhere" / "map.png", "there is no folder"),
    ):
        with pytest.raises(UserError, match=words):
            draw(raster, [], path)
    assert not raster.reads
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_replaced_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "map.png").mkdir()
    raster = raster_of(ordinary(20, 20))
    with pytest.raises(UserError, match=r"map\.png can't be written"):
        draw_map(raster, [], tmp_path / "map.png")
    assert [path.name for path in tmp_path.iterdir()] == ["map.png"]


# -- the sheet ---------------------------------------------------------------------------------------------


def numbers_chosen(found: Detections, most: int, batch: int = 1000) -> tuple[list[list[int]], int]:
    parts = (found[i : i + batch] for i in range(0, len(found), batch))
    groups, total = chosen(parts, most)
    return [group.number.tolist() for group in groups], total


@given(st.lists(st.integers(0, 5), max_size=60), st.integers(1, 30), st.integers(1, 61))
def test_first_and_last_are_those_of_a_sort(scores: list[int], most: int, batch: int) -> None:
    found = points(Grid(100, 100), np.zeros((len(scores), 2)), np.array(scores) / 5)
    groups, total = numbers_chosen(found, most, batch)
    assert total == len(scores)
    flat = [number for group in groups for number in group]
    assert len(flat) == len(set(flat)) == min(most, len(scores))
    order = sorted(range(1, len(scores) + 1), key=lambda number: (-scores[number - 1], number))
    if len(scores) <= most:
        assert flat == order
    elif len(set(scores)) > 1:
        ends = 2 * most // 5
        assert flat[:ends] == order[:ends]
        assert flat[len(flat) - ends :] == order[len(order) - ends :]
        assert all(scores[a - 1] >= scores[b - 1] for a, b in pairwise(flat))


def test_the_middle_is_around_the_median() -> None:
    score = np.random.default_rng(3).random(50_000) ** 2
    groups, _ = numbers_chosen(points(Grid(100, 100), np.zeros((50_000, 2)), score), 60, batch=1234)
    assert [len(group) for group in groups] == [24, 12, 24]
    ranks = np.searchsorted(np.sort(score), score[np.array(groups[1]) - 1]) / 50_000
    assert np.abs(ranks - 0.5).max() < 0.03


def test_where_nothing_tells_objects_apart_a_sample_is_shown() -> None:
    groups, total = numbers_chosen(points(Grid(100, 100), np.zeros((5000, 2))), 60)
    assert total == 5000
    assert len(groups) == 1
    assert len(set(groups[0])) == 60
    assert groups[0] == sorted(groups[0])
    assert groups[0][0] < 600
    assert groups[0][-1] > 4400


def test_a_cutout_shows_its_object_in_the_middle(tmp_path: Path) -> None:
    pixels = grey(400, 400)
    pixels[0, 100:120, 200:230] = 250  # a red thing
    raster = raster_of(pixels)
    draw_sheet(raster, [boxes(raster.grid, (200, 100, 230, 120))], tmp_path / "sheet.png")
    # 30 px wide: 72 px of the raster are shown, twice as large.
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    x = np.nonzero((sheet == (250, 90, 90)).all(axis=2))[1]  # what the outline leaves of it
    assert x.max() + 1 - x.min() == pytest.approx(56, abs=4)
    assert (x.min() + x.max() + 1) / 2 == pytest.approx(MARGIN + CUTOUT_PX / 2, abs=2)
    marked = near_colour(sheet, PALETTE[0])
    assert np.nonzero(marked)[1].mean() + 0.5 == pytest.approx(MARGIN + CUTOUT_PX / 2, abs=2)


def test_large_objects_are_reduced_and_edges_are_paper(tmp_path: Path) -> None:
    raster = raster_of(grey(3000, 3000), transform=(0.1, 0, 6e5, 0, -0.1, 4e6), crs=UTM)
    small = [(x, 50, x + 20, 70) for x in range(0, 2980, 100)]
    found = boxes(
        raster.grid, [*small, (0, 0, 2500, 2500)], classes=("bush", "wood"), label=[0] * len(small) + [1]
    )
    draw_sheet(raster, [found[:10], found[10:]], tmp_path / "sheet.png")
    # At any size of object, no more pixels are read than are shown.
    assert max(window.area for window in raster.reads if window.height < 3000) <= CUTOUT_PX**2
    first = (tmp_path / "sheet.png").read_bytes()
    draw_sheet(raster, [found], tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes() == first


def test_a_sheet_of_nothing_says_so(tmp_path: Path) -> None:
    raster = raster_of(ordinary(50, 50))
    draw_sheet(raster, [], tmp_path / "none.png")
    draw_sheet(raster, [Detections.empty(raster.grid, "point", ("tree",))], tmp_path / "empty.png")
    assert (tmp_path / "none.png").read_bytes() == (tmp_path / "empty.png").read_bytes()
