"""`threshold`: what it finds, that tiling can't be seen, and what it answers to odd rasters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import shapely
from cutting import built
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from ecodetect.detections import Detections
from ecodetect.detectors import filtering, outlines
from ecodetect.detectors.protocol import Scene
from ecodetect.detectors.table import build
from ecodetect.errors import UserError
from ecodetect.grid import Window
from ecodetect.testing import chip_of, rows_of, searched

RGB = ("red", "green", "blue")
# Small enough that a small raster has many tiles.
SMALL = {"largest": "24px", "min_area": "6px", "open": "1px", "smooth": "0.8px"}


def scenery(seed: int, width: int = 150, height: int = 110, bands: int = 3) -> NDArray[np.uint8]:
    """Textured ground with dark, crowded, touching discs of 2 to 12 px radius."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width), 150.0)
    for _ in range(int(rng.integers(10, 120))):
        centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        cv2.circle(image, centre, int(rng.integers(2, 12)), float(rng.integers(30, 120)), -1)
    noise = rng.normal(0, rng.uniform(0, 15), (bands, height, width))
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def holes(seed: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask with a corner, a stripe and specks that aren't valid."""
    rng = np.random.default_rng(seed)
    valid = rng.random(shape) > 0.003
    y, x = np.indices(shape)
    valid &= x + y > rng.integers(0, 80)
    valid[:, 70:74] = False
    return valid


def whole(
    pixels: NDArray[Any], bands: tuple[str, ...] = RGB, valid: Any = None, **options: str
) -> Detections:
    """What is found in one piece, in the raster's pixels."""
    detector = built("threshold", pixels, valid, bands, **options)
    chosen = [bands.index(band) for band in detector.needs.bands]
    chip = chip_of(
        pixels[chosen], valid, detector.needs.bands, Window(0, 0, pixels.shape[2], pixels.shape[1])
    )
    (found,) = detector.detect([chip])
    return found


def spots(
    *boxes: tuple[int, int, int, int], value: int = 40, shape: tuple[int, int] = (60, 80)
) -> NDArray[np.uint8]:
    """Grey ground of 200 with rectangles (xmin, ymin, xmax, ymax, half-open)."""
    image = np.full((1, *shape), 200, np.uint8)
    for x0, y0, x1, y1 in boxes:
        image[0, y0:y1, x0:x1] = value
    return image


PLAIN = {"smooth": "0px", "open": "0px", "min_area": "1px"}

# ---- outlines
# ---------------------------------------------------------------------------------------------------


def trace(mask: NDArray[Any]) -> tuple[outlines.Regions, outlines.Outlines]:
    framed = np.pad(mask.astype(np.uint8), 1)
    regions = outlines.regions_in(framed)
    return regions, outlines.traced(regions, np.ones(regions.number + 1, np.bool_))


@given(st.integers(0, 2**32 - 1), st.integers(1, 13), st.integers(1, 13), st.floats(0.1, 0.95))
@settings(max_examples=60, deadline=None)
def test_outlines_are_those_of_the_filled_regions(seed: int, width: int, height: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    regions, found = trace(mask)
    shapes = found.polygons(-1, -1)
    assert shapely.is_valid(shapes).all()
    _, number = ndimage.label(mask)
    assert len(shapes) == number
    cross = ndimage.generate_binary_structure(2, 1)
    labels = regions.painted()
    for k, shape in enumerate(shapes):
        one = np.pad(labels == found.label[k], 1)
        filled = ndimage.binary_fill_holes(one, cross)[2:-2, 2:-2]
        y, x = np.nonzero(filled)
        assert found.areas()[k] == len(x) == shape.area
        assert shapely.contains_xy(shape, x + 0.5, y + 0.5).all()
        moments = np.linalg.eigvalsh(np.cov(np.stack([x, y]), bias=True) + np.eye(2) / 12)
        assert found.elongations()[k] == pytest.approx(np.sqrt(moments[1] / moments[0]))
        assert tuple(shape.bounds) == tuple(regions.box[found.label[k]] - 1)


def test_a_blob_of_9_pixels_has_an_outline_of_area_9() -> None:
    found = whole(spots((10, 20, 13, 23)), ("grey",), **PLAIN)
    assert found.geometry[0].equals(shapely.box(10, 20, 13, 23))
    assert len(shapely.get_coordinates(found.geometry[0])) == 5


def test_a_gap_is_filled_and_what_meets_at_a_corner_is_apart() -> None:
    image = spots((10, 10, 20, 20), (20, 20, 26, 26))
    image[0, 13:16, 13:16] = 200
    found = whole(image, ("grey",), **PLAIN)
    assert sorted(shapely.area(found.geometry)) == [36, 100]


def test_shapes_measured() -> None:
    disc = np.zeros((101, 101), np.uint8)
    cv2.circle(disc, (50, 50), 40, 1, -1)
    bar = np.zeros((101, 101), np.uint8)
    bar[40:60, 5:95] = 1
    for mask, circularity, elongation in ((disc, 0.9, 1.0), (bar, 0.47, 4.5)):
        _, found = trace(mask)
        assert 4 * np.pi * found.areas()[0] / found.perimeters()[0] ** 2 == pytest.approx(
            circularity, abs=0.02
        )
        assert found.elongations()[0] == pytest.approx(elongation, abs=0.01)
        assert found.areas()[0] / found.hull_areas()[0] > 0.97


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("sigma", [0, 0.7, 2.0])
def test_what_lies_at_or_below_a_level_is_told_by_the_rounded_means(dtype: Any, sigma: float) -> None:
    rng = np.random.default_rng(3)
    image = (rng.integers(0, 4, (90, 120)) * (np.iinfo(dtype).max // 3)).astype(dtype)  # many ties
    for valid in (None, holes(3, image.shape), np.ones(image.shape, np.bool_)):
        known = np.where(True if valid is None else valid, image, 0).astype(dtype)
        means = filtering.gaussian(known, valid, sigma)
        for level in (-1, 0, 1, 84, 85, 127, 128, int(np.median(means)), np.iinfo(dtype).max):
            below = filtering.gaussian_at_most(known, valid, sigma, level)
            assert ((below == (means <= level)) | ~(np.True_ if valid is None else valid)).all()


@pytest.mark.parametrize(("ground", "object_"), [(200, 50), (50, 200), (100, 101), (100, 100)])
@pytest.mark.parametrize("place", [(0, 0), (63, 0), (64, 31), (199, 79), (128, 40)])
def test_a_level_is_looked_for_only_near_what_lies_on_its_other_side(
    ground: int, object_: int, place: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filtering, "STRIP_VALUES", 1)  # several strips
    image = np.full((200, 80), ground, np.uint8)
    image[place] = image[place[0] // 2, place[1] // 2] = object_
    for valid in (None, holes(3, image.shape)):
        known = np.where(True if valid is None else valid, image, 0).astype(np.uint8)
        means = filtering.gaussian(known, valid, 2.0)
        for level in (-1, 0, 50, 99, 100, 101, 150, int(means[place]), 199, 200, 255):
            below = filtering.gaussian_at_most(known, valid, 2.0, level)
            assert ((below == (means <= level)) | ~(np.True_ if valid is None else valid)).all()


def test_objects_that_are_not_asked_for_may_be_left_out_and_no_others() -> None:
    image = scenery(5)
    detector = built("threshold", image, None, RGB, **SMALL)
    chip = chip_of(image, None, RGB, Window(0, 0, 150, 110))
    asked = Window(40, 30, 60, 50)
    every, (some,) = detector.detect([chip])[0], detector.detect([replace(chip, asked=asked)])
    wanted = every[asked.owns(every.centres())]
    assert 0 < len(some) == len(wanted)
    assert shapely.equals_exact(some.geometry, wanted.geometry).all()
    assert (some.score == wanted.score).all()


# ---- what is found
# ----------------------------------------------------------------------------------------------


def test_level_is_inclusive_for_dark_and_exclusive_for_bright() -> None:
    image = spots((5, 5, 10, 10), value=100)
    image[0, 30:35, 30:35] = 101
    plain = {**PLAIN, "level": "100", "max_area": "30px"}
    dark = whole(image, ("grey",), **plain)
    bright = whole(255 - image, ("grey",), **{**plain, "level": "154", "objects": "bright"})
    assert [shape.bounds for shape in dark.geometry] == [(5, 5, 10, 10)]
    assert [shape.bounds for shape in bright.geometry] == [(5, 5, 10, 10)]


def test_otsu_parts_two_kinds_of_pixels_and_the_score_is_their_contrast() -> None:
    found = whole(spots((5, 5, 15, 15), (40, 30, 60, 40), value=50), ("grey",), **PLAIN)
    assert sorted(shapely.area(found.geometry)) == [100, 200]
    assert found.score.tolist() == [0.75, 0.75]


def test_local_level_follows_uneven_light() -> None:
    ramp = np.broadcast_to(np.linspace(80, 240, 200), (60, 200)).copy()
    for x in range(15, 190, 30):
        ramp[25:35, x : x + 10] -= 30
    image = np.round(ramp)[None].astype(np.uint8)
    local = whole(image, ("grey",), level="local", window="30px", largest="30px", min_area="50px")
    assert len(local) == 6
    assert len(whole(image, ("grey",), level="otsu", largest="30px", min_area="50px")) < 6


def test_gates() -> None:
    image = spots((5, 5, 15, 15), (30, 5, 70, 9), (30, 30, 32, 32))
    image[0, 40:50, 10:13] = image[0, 47:50, 10:20] = 40  # an L
    every = {**PLAIN, "largest": "50px"}
    assert len(whole(image, ("grey",), **every)) == 4
    areas = {
        "min_area": ("50px", [51, 100, 160]),
        "max_area": ("60px", [4, 51]),
        "max_elongation": ("3", [4, 51, 100]),
        "min_solidity": ("0.9", [4, 100, 160]),
        "min_circularity": ("0.7", [4, 100]),
        "largest": ("20px", [4, 51, 100]),
    }
    for name, (value, expected) in areas.items():
        found = whole(image, ("grey",), **{**every, name: value})
        box = found.bounds()
        fits = (box[:, 2:] - box[:, :2]).max(axis=1) <= (20 if name == "largest" else 50)
        assert sorted(shapely.area(found[fits].geometry)) == expected, name


def test_split_parts_a_figure_of_eight_and_leaves_a_disc() -> None:
    image = np.full((1, 60, 120), 200, np.uint8)
    for x in (20, 40, 90):
        cv2.circle(image[0], (x, 30), 12, 40, -1)
    assert len(whole(image, ("grey",))) == 2
    found = whole(image, ("grey",), split="yes")
    assert len(found) == 3
    centres = found.centres()
    np.testing.assert_allclose(
        centres[np.argsort(centres[:, 0])], [(20.5, 30.5), (40.5, 30.5), (90.5, 30.5)], atol=3
    )


@pytest.mark.parametrize("radius", [1, 5, 12, 13, 20])
def test_opening_keeps_what_a_disc_fits_into(radius: int) -> None:
    mask = np.zeros((200, 200), np.uint8)
    cv2.circle(mask, (50, 60), radius + 2, 1, -1)
    mask[40:84, 100:180] = 1
    mask[120 : 120 + 2 * radius - 1, 100:180] = 1  # a bar too narrow
    opened = filtering.opened(mask, radius)
    assert opened[60, 50]
    assert opened[40:84, 140].all()
    assert not opened[100:].any()
    assert not (opened & ~mask).any()
    assert np.array_equal(filtering.opened(opened, radius), opened)


def test_a_gap_is_no_neck() -> None:
    image = np.full((1, 60, 80), 200, np.uint8)
    cv2.circle(image[0], (40, 30), 20, 40, -1)
    image[0, 24:37, 36:45] = 200
    whole_disc = whole(image, ("grey",), **PLAIN)
    assert len(whole_disc) == 1
    assert rows_of(whole(image, ("grey",), split="yes", **PLAIN))[0][1:] == rows_of(whole_disc)[0][1:]


def test_a_clump_wider_than_largest_is_left_whole() -> None:
    image = np.full((1, 60, 160), 200, np.uint8)
    for x in range(20, 141, 20):
        cv2.circle(image[0], (x, 30), 12, 40, -1)
    assert len(whole(image, ("grey",), split="yes", largest="100px")) == 1
    assert len(whole(image, ("grey",), split="yes", largest="150px")) == 7


def test_kinds_of_geometry() -> None:
    image = spots((10, 20, 14, 30))
    box = whole(image, ("grey",), geometry="box", **PLAIN)
    point = whole(image, ("grey",), geometry="point", **PLAIN)
    assert box.geometry.tolist() == [[10, 20, 14, 30]]
    assert point.geometry.tolist() == [[12, 25]]
    assert point.diameter is not None
    assert point.diameter[0] == pytest.approx(np.sqrt(40 * 4 / np.pi))
    empty = whole(image, ("grey",), geometry="point", level="3")
    assert len(empty) == 0
    assert empty.diameter is not None


def test_indices_find_vegetation() -> None:
    red, green, blue, nir = (np.full((40, 40), value, np.uint8) for value in (120, 110, 100, 130))
    red[10:20, 10:20], green[10:20, 10:20], nir[10:20, 10:20] = 60, 120, 220
    image = np.stack([red, green, blue, nir])
    for band in ("ndvi", "exg"):
        found = whole(image, (*RGB, "nir"), band=band)
        assert len(found) == 1, band
        np.testing.assert_allclose(found.bounds()[0], (10, 10, 20, 20), atol=1)


def test_invalid_pixels_are_neither_objects_nor_weight() -> None:
    image = spots((10, 10, 20, 20))
    valid = np.ones(image.shape[1:], np.bool_)
    valid[:, 40:] = False
    image[0, :, 40:] = 0  # as dark as can be
    found = whole(image, ("grey",), valid=valid, smooth="2px", level="100", open="0px", min_area="9px")
    alone = whole(image[:, :, :40], ("grey",), smooth="2px", level="100", open="0px", min_area="9px")
    assert rows_of(found) == rows_of(alone)
    assert found.bounds()[:, 2].max() <= 40


@pytest.mark.parametrize("kind", ["uint16", "int16", "int64", "float32", "float64"])
def test_other_types_are_stretched(kind: str) -> None:
    image = scenery(3)
    stretched = (
        image.astype(np.float64) * 20 - 3000 if kind != "uint16" else image.astype(np.float64) * 20
    ).astype(kind)
    eight, other = whole(image, RGB, **SMALL), whole(stretched, RGB, **SMALL)
    assert len(eight) > 5
    assert abs(len(eight) - len(other)) <= 0.1 * len(eight)


def test_nan_is_not_valid() -> None:
    image = spots((10, 10, 20, 20)).astype(np.float32)
    image[0, :, 40:] = np.nan
    image[0, 0, 0] = np.inf
    found = whole(image, ("grey",), **PLAIN)
    assert [shape.bounds for shape in found.geometry] == [(10, 10, 20, 20)]


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float64", "int64"])
@pytest.mark.parametrize("level", ["otsu", "local", "100"])
def test_nothing_stands_out_of_a_constant_or_an_empty_raster(kind: str, level: str) -> None:
    image = np.full((3, 50, 50), 200, kind)
    for valid in (None, np.zeros((50, 50), np.bool_)):
        for objects in ("dark", "bright"):
            found = whole(image, RGB, valid, level=level, objects=objects, **PLAIN)
            widths = found.bounds()[:, 2] - found.bounds()[:, 0]
            assert not len(found) or (level == "100" and valid is None and widths[0] == 50)


def test_the_settings_name_what_was_found() -> None:
    detector = built("threshold", scenery(1).astype(np.uint16), None, RGB)
    assert detector.settings["level"] == "otsu"
    assert 0 < detector.settings["level_found"] < 255
    assert detector.settings["span"][1] <= 255


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"level": "300"}, "level must lie in 0 to 255"),
        ({"level": "otzu"}, "level must be"),
        ({"band": "nir"}, "band=nir isn't in the raster"),
        ({"band": "ndvi"}, "needs red, nir"),
        ({"largest": "3m"}, "state its pixel size"),
        ({"largest": "5000px"}, "largest must be"),
        ({"gsd": "3px"}, "gsd must be a length in metres"),
        ({"neck": "2"}, "neck must be"),
        ({"offset": "-3"}, "offset must lie"),
        ({"smooth": "999px"}, "smooth must be at most 100 px"),
        ({"open": "9999px"}, "open must be at most"),
        ({"min_solidity": "80"}, "min_solidity must lie in 0 to 1"),
        ({"max_elongation": "nan"}, "max_elongation must be at least 1"),
        ({"min_aera": "3px"}, "did you mean min_area"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        build("threshold", Scene(RGB, None, "uint8", (0, 255)), options)


def test_metres_become_pixels_of_the_working_grid() -> None:
    scene = Scene(RGB, (0.1, 0.1), "uint8", (0, 255))
    metres = {"largest": "10m", "min_area": "2m2", "open": "30cm"}
    native = build("threshold", scene, metres)
    coarse = build("threshold", scene, {**metres, "gsd": "0.2m"})
    assert (native.needs.largest_px, native.needs.gsd_m) == (100, None)
    assert (coarse.needs.largest_px, coarse.needs.gsd_m) == (50, 0.2)


# ---- tiling can't be seen
# ---------------------------------------------------------------------------------------

VARIANTS = {
    "otsu": {},
    "fixed": {"level": "100", "smooth": "0px"},
    "local": {"level": "local", "window": "17px", "offset": "6"},
    "smooth": {"smooth": "3px", "open": "0px"},
    "wide-smooth": {"smooth": "9px", "open": "0px"},
    "open": {"open": "3px", "smooth": "0px"},
    "wide-open": {"open": "13px", "smooth": "0px", "largest": "60px"},
    "split": {"split": "yes", "largest": "40px"},
    "gates": {"min_solidity": "0.85", "max_elongation": "2.5", "min_circularity": "0.5"},
    "points": {"geometry": "point", "split": "yes"},
    "boxes": {"geometry": "box"},
    "exg": {"band": "exg", "objects": "bright"},
}


@pytest.mark.parametrize("variant", VARIANTS)
@given(
    seed=st.integers(0, 10_000),
    tile=st.integers(7, 90),
    origin=st.tuples(st.integers(0, 6), st.integers(0, 6)),
    kind=st.sampled_from(["uint8", "uint8", "uint16", "float32"]),
    masked=st.booleans(),
)
@settings(max_examples=3, deadline=None, phases=[Phase.generate])
def test_any_cut_gives_the_same_features(
    variant: str, seed: int, tile: int, origin: tuple[int, int], kind: str, masked: bool
) -> None:
    pixels = scenery(seed, 110, 80).astype(kind)
    valid = holes(seed, pixels.shape[1:]) if masked else None
    detector = built("threshold", pixels, valid, RGB, **{**SMALL, **VARIANTS[variant]})
    one = searched(detector, pixels, valid, RGB, 1000)
    assert searched(detector, pixels, valid, RGB, tile, origin) == one
