"""What users rely on when they let selective search propose, and that hierarchies are what they say."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import shapely
from cutting import built
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ecodetect.detections import Detections
from ecodetect.detectors import table as detectors
from ecodetect.detectors.hierarchy import Hierarchy, grouped
from ecodetect.errors import UserError
from ecodetect.grid import Window
from ecodetect.settling import overlap
from ecodetect.testing import chip_of, rows_of, scene_of, searched

BANDS = ("red", "green", "blue")
SIZES = {"smallest": "10px", "largest": "60px"}
DISCS = [(30, 30, 8), (90, 40, 12), (50, 95, 18), (120, 110, 10)]  # x, y, radius
SOIL, CROWN = (150, 120, 90), (60, 80, 40)


def drawn(discs: list[tuple[int, int, int]], noise: float = 3.0) -> NDArray[Any]:
    """Crowns on soil, (3, 140, 150), uint8."""
    image = np.empty((140, 150, 3))
    image[:] = SOIL
    for x, y, radius in discs:
        cv2.circle(image, (x, y), radius, CROWN, -1)
    image += np.random.default_rng(1).normal(0, noise, image.shape)
    return np.ascontiguousarray(image.clip(0, 255).astype(np.uint8).transpose(2, 0, 1))


def proposed(
    pixels: NDArray[Any],
    bands: tuple[str, ...] = BANDS,
    valid: NDArray[np.bool_] | None = None,
    **options: str,
) -> Detections:
    """Proposals in all of a picture."""
    detector = built("selective_search", pixels, valid, bands, **{**SIZES, **options})
    whole = Window(0, 0, pixels.shape[2], pixels.shape[1])
    chosen = [bands.index(band) for band in detector.needs.bands]
    return detector.detect([chip_of(pixels[chosen], valid, detector.needs.bands, whole)])[0]


def nearest(found: Detections, box: tuple[float, float, float, float]) -> float:
    """The largest IoU of a proposal's box with this one."""
    bounds = found.bounds()
    return float(overlap(bounds, np.tile(np.array(box, np.float64), (len(bounds), 1))).max(initial=0))


@pytest.mark.parametrize("colours", ["rgb", "lab", "hsv", "rgi", "rgb,lab"])
def test_discs_are_found_whole_in_every_colour_space(colours: str) -> None:
    found = proposed(drawn(DISCS), colours=colours)
    for x, y, radius in DISCS:
        assert nearest(found, (x - radius, y - radius, x + radius + 1, y + radius + 1)) > 0.7


def test_outlines_are_those_of_the_objects() -> None:
    found = proposed(drawn(DISCS))
    assert shapely.is_valid(found.geometry).all()
    for x, y, radius in DISCS:
        disc = shapely.Point(x + 0.5, y + 0.5).buffer(radius + 0.5)
        common = shapely.area(shapely.intersection(found.geometry, disc))
        # The rim of mixed pixels may be in or out.
        assert (common / shapely.area(shapely.union(found.geometry, disc))).max() > 0.75


@pytest.mark.parametrize("bands", [("grey",), ("one", "two"), ("nir", "red", "green"), (*BANDS, "nir")])
def test_rasters_of_any_bands(bands: tuple[str, ...]) -> None:
    pixels = np.resize(drawn(DISCS), (len(bands), 140, 150))
    x, y, radius = DISCS[1]
    assert nearest(proposed(pixels, bands), (x - radius, y - radius, x + radius, y + radius)) > 0.8


def test_an_object_and_its_parts_are_both_proposed() -> None:
    pixels = drawn([])
    pixels[:, 40:80, 40:60] = np.array([70, 90, 50])[:, None, None]  # a crown, half in the shade
    pixels[:, 40:80, 60:80] = np.array([35, 45, 25])[:, None, None]
    found = proposed(pixels)
    for box in ((40, 40, 80, 80), (40, 40, 60, 80), (60, 40, 80, 80)):
        assert nearest(found, box) > 0.85


def test_a_textured_object_is_proposed_whole() -> None:
    pixels = drawn([])
    rough = np.random.default_rng(3).integers(0, 2, (10, 10)).repeat(4, 0).repeat(4, 1) * 60
    pixels[:, 50:90, 60:100] = np.array([40, 55, 25])[:, None, None] + rough
    assert nearest(proposed(pixels), (60, 50, 100, 90)) > 0.85


def test_what_stands_out_more_has_the_higher_score() -> None:
    pixels = drawn([])
    for left, shade in ((20, 40), (90, 110)):
        pixels[:, 50:80, left : left + 30] = shade
    found = proposed(pixels)
    near = [overlap(found.bounds(), np.tile([x, 50.0, x + 30, 80], (len(found), 1))) > 0.8 for x in (20, 90)]
    assert found.score[near[0]].max() > 0.6 > 0.4 > found.score[near[1]].max()


def test_nothing_is_proposed_on_blank_ground() -> None:
    assert len(proposed(drawn([], noise=0))) == 0
    assert len(proposed(drawn([], noise=3))) == 0  # least contrast
    assert len(proposed(drawn([], noise=3), min_contrast="0", scales="5")) > 0


def test_sizes_lie_within_the_gates() -> None:
    found = proposed(drawn(DISCS, noise=15), smallest="18px", largest="30px", min_contrast="0", scales="10")
    bounds = found.bounds()
    assert len(found) > 3
    assert (bounds[:, 2:] - bounds[:, :2]).max() <= 30
    detector = built("selective_search", drawn([]), None, BANDS, smallest="18px", largest="30px")
    assert detector.needs.own_px == pytest.approx(1.8)  # it looks at a coarser raster
    assert detector.needs.largest_px == pytest.approx(30 / 1.8)


def test_no_two_proposals_have_nearly_the_same_box() -> None:
    bounds = proposed(drawn(DISCS, noise=15), min_contrast="0", scales="10,50").bounds()
    one, other = np.triu_indices(len(bounds), 1)
    assert overlap(bounds[one], bounds[other]).max() <= 0.7


def test_the_same_picture_gives_the_same_bytes() -> None:
    pixels = drawn(DISCS, noise=15)
    assert rows_of(proposed(pixels)) == rows_of(proposed(pixels.copy()))


def test_discs_are_found_in_whichever_tiles() -> None:
    pixels = drawn(DISCS)
    detector = built("selective_search", pixels, None, BANDS, **SIZES)
    for tile, origin in ((200, (0, 0)), (40, (0, 0)), (64, (13, 30))):
        rows = [np.reshape(row[1:], (-1, 2)) for row in searched(detector, pixels, None, BANDS, tile, origin)]
        bounds = np.array([[*xy.min(axis=0), *xy.max(axis=0)] for xy in rows])
        for x, y, radius in DISCS:
            disc = np.tile([x - radius, y - radius, x + radius + 1.0, y + radius + 1], (len(bounds), 1))
            assert overlap(bounds, disc).max() > 0.7


def test_what_is_not_valid_is_in_no_proposal() -> None:
    pixels, valid = drawn(DISCS), np.ones((140, 150), np.bool_)
    valid[:, 55:58] = False  # between the second half of a disc and the first
    found = proposed(pixels, valid=valid)
    assert len(found) > 3
    assert not shapely.intersects(found.geometry, shapely.box(55.5, 0, 57.5, 140)).any()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"colours": "rgb,luv"}, "colours must be some of rgb, lab, hsv, rgi; got 'luv'"),
        ({"scales": "50,many"}, "scales must be numbers above 0 and at most 10000"),
        ({"scales": "0"}, "scales must be numbers above 0"),
        ({"smallest": "2px"}, "Objects must be 4 px wide or more"),
        ({"smallest": "30px", "largest": "20px"}, "largest above smallest"),
        ({"largest": "5000px"}, "not above 2048 px"),
        ({"smallest": "3m"}, "smallest is 3m, but the raster has no CRS"),
        ({"min_contrast": "2"}, "min_contrast must lie in 0 to 1; got 2"),
        ({"band": "swir"}, "band=swir isn't in the raster"),
    ],
)
def test_options_that_cannot_be_meant_are_answered_in_a_sentence(options: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says) as told:
        detectors.build("selective_search", scene_of(drawn([]), BANDS), options)
    assert "\n" not in str(told.value)


@st.composite
def segmented(draw: st.DrawFn) -> tuple[Hierarchy, NDArray[np.int64], float]:
    """Hierarchies of segments drawn by chance, which may leave ground out."""
    from skimage.measure import label

    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    values = np.random.default_rng(draw(st.integers(0, 99))).integers(
        0, draw(st.integers(2, 5)), (height, width)
    )
    labels = np.asarray(label(values, background=0, connectivity=1), np.int64)
    channel = np.asarray(labels * 37 % 256, np.float32)
    largest = draw(st.integers(1, 15))
    return grouped(labels, [channel], largest), labels, largest


@settings(max_examples=20, deadline=None)
@given(segmented())
def test_a_hierarchy_is_made_of_the_segments(case: tuple[Hierarchy, NDArray[np.int64], float]) -> None:
    tree, labels, largest = case
    n = int(labels.max(initial=0))
    assert n <= len(tree) <= max(0, 2 * n - 1)
    outlines = tree.polygons(np.arange(len(tree)))
    for k in range(len(tree)):
        mask = (tree.place >= tree.first[k]) & (tree.place < tree.last[k])
        y, x = np.nonzero(mask)
        box = [x.min(), y.min(), x.max() + 1, y.max() + 1]
        assert tree.box[k].tolist() == box  # of exactly its pixels
        assert outlines[k].bounds == tuple(box)
        assert outlines[k].is_valid
        assert tree.sums()[k] == len(x)
        assert outlines[k].area >= len(x)  # gaps are filled
        if k < n:
            assert len(np.unique(labels[mask])) == 1  # the segments come first
        else:
            assert (tree.box[k, 2:] - tree.box[k, :2]).max() <= largest
    # Of any two regions one lies in the other, or they are apart.
    a, b = tree.first[:, None], tree.last[:, None]
    nested = (a <= tree.first) & (tree.last <= b)
    assert (nested | nested.T | (tree.last <= a) | (b <= tree.first)).all()
