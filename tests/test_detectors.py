"""What every detector of the table must keep to; a new one is tested by being in the table."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from functools import lru_cache
from typing import Any

import cv2
import learned
import numpy as np
import pytest
from cutting import Rows, chip_of, rows_of, scene_of, searched
from numpy.typing import NDArray
from scipy.spatial import KDTree

from ecodetect.bundle.file import Bundle
from ecodetect.chip import Chip
from ecodetect.detections import Detections
from ecodetect.detectors import table as detectors
from ecodetect.detectors.protocol import Detector, Scene
from ecodetect.detectors.table import TABLE, declared, describe, is_learned
from ecodetect.errors import UserError
from ecodetect.grid import Window

BANDS = ("red", "green", "blue", "nir")
KINDS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]
# What `mask_rcnn` does to pixels `faster_rcnn` does; it is the slowest of all.
SLOW = {"mask_rcnn"}
pytestmark = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in sorted(TABLE)]
)


def ground(kind: str = "uint8", width: int = 160, height: int = 120) -> NDArray[Any]:
    """Dark discs of 5 to 9 px radius on rough bright ground; (4, height, width)."""
    rng = np.random.default_rng(7)
    image = np.full((height, width), 90.0)
    for x, y in rng.integers(10, (width - 10, height - 10), size=(30, 2)):
        cv2.circle(image, (int(x), int(y)), int(rng.integers(5, 10)), 20.0, -1)
    return (image + rng.normal(0, 3, (4, height, width))).clip(0, 120).astype(kind)


@lru_cache
def bundle(name: str) -> Bundle:
    return learned.bundle(learned.card(name))


def build(name: str, scene: Scene, options: dict[str, str] | None = None) -> Detector:
    """The detector; a learned one with random weights."""
    if not is_learned(name):
        return detectors.build(name, scene, options)
    return detectors.build(name, scene, options, bundle=bundle(name), device="cpu")


def assert_alike(name: str, one: Rows, two: Rows) -> None:
    """The same detections: to the last bit, but of a network within 0.01 px and 1e-4 of score."""
    if not is_learned(name):
        assert one == two
        return
    assert len(one) == len(two)
    if len(set(map(len, one))) > 1:  # outlines: by the boxes about them
        one, two = ([_boxed(row) for row in rows] for rows in (one, two))
    first, second = np.array(one), np.array(two)
    apart, nearest = KDTree(second[:, 1:]).query(first[:, 1:])
    if name == "mask_rcnn":  # of masks of chance the largest part may be another
        assert np.abs(np.sort(first[:, 0]) - np.sort(second[:, 0])).max() <= 1e-4
        assert (apart <= 0.01).mean() > 0.95
        return
    assert len(set(nearest.tolist())) == len(first)
    off = np.abs(first - second[nearest])
    assert off[:, 0].max() <= 1e-4
    assert off[:, 1:].max() <= 0.01


def _boxed(row: tuple[float, ...]) -> tuple[float, ...]:
    score, x, y = row[0], row[1::2], row[2::2]
    return score, min(x), min(y), max(x), max(y)


def ready(name: str, pixels: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> Detector:
    """The detector with default options, surveyed on all of the raster."""
    detector = build(name, scene_of(pixels, BANDS))
    if detector.needs.survey:
        detector = detector.surveyed([chip(detector, pixels, valid)])
    return detector


def chip(
    detector: Detector,
    pixels: NDArray[Any],
    valid: NDArray[np.bool_] | None = None,
    window: Window | None = None,
) -> Chip:
    """The bands that the detector needs, of the whole raster or of a window."""
    chosen = [BANDS.index(band) for band in detector.needs.bands]
    whole = Window(0, 0, pixels.shape[2], pixels.shape[1])
    return chip_of(pixels[chosen], valid, detector.needs.bands, window or whole)


def check(detector: Detector, found: Detections, chip: Chip) -> None:
    """What holds for any detections."""
    assert found.kind == detector.kind
    assert found.classes == detector.classes
    assert found.grid == chip.grid
    assert ((found.score >= 0) & (found.score <= 1)).all()
    assert ((found.label >= 0) & (found.label < len(found.classes))).all()
    bounds = found.bounds()
    assert np.isfinite(bounds).all()
    assert (bounds[:, 2:] >= bounds[:, :2]).all()
    centres = found.centres()
    assert ((centres >= 0) & (centres <= (chip.grid.width, chip.grid.height))).all()


def test_every_option_is_documented(name: str) -> None:
    options = declared(name).options
    assert dataclasses.is_dataclass(options)
    assert options.__dataclass_params__.frozen
    described = describe(name)
    assert described.purpose.endswith(".")
    assert set(described.options) == {field.name for field in dataclasses.fields(options)}
    assert all(meaning for _, meaning in described.options.values())


def test_an_unknown_option_is_answered(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} has no option 'nonsense'"):
        build(name, scene_of(ground(), BANDS), {"nonsense": "1"})


def test_it_says_what_it_is(name: str) -> None:
    detector = ready(name, ground())
    assert isinstance(detector, Detector)
    assert detector.name == name
    assert detector.classes
    needs = detector.needs
    assert set(needs.bands) <= set(BANDS)
    assert needs.largest_px > 0
    assert needs.reach_px >= 0
    assert needs.bytes_per_pixel > 0
    assert json.loads(json.dumps(detector.settings, allow_nan=False)) == json.loads(
        json.dumps(detector.settings)
    )


def test_a_survey_is_a_function_of_the_samples(name: str) -> None:
    first, second = ready(name, ground()), ready(name, ground())
    if not is_learned(name):  # networks are compared by what they are made of
        assert first == second
    assert first.settings == second.settings


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_of_pixel(name: str, kind: str) -> None:
    pixels = ground(kind)
    detector = ready(name, pixels)
    whole = chip(detector, pixels)
    (found,) = detector.detect([whole])
    check(detector, found, whole)
    assert len(found) > 5


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e308", "-1e308"])
def test_values_that_are_no_measurement(name: str, value: str) -> None:
    pixels = ground("float64")
    pixels[:, 20:40, 20:40] = float(value)
    valid = np.isfinite(pixels[0]) if not np.isfinite(float(value)) else None
    detector = ready(name, pixels, valid)
    whole = chip(detector, pixels, valid)
    (found,) = detector.detect([whole])
    check(detector, found, whole)


def test_nothing_valid_nothing_found(name: str) -> None:
    pixels, nowhere = ground(), np.zeros((120, 160), np.bool_)
    for detector in (ready(name, pixels), ready(name, pixels, nowhere)):
        whole = chip(detector, pixels, nowhere)
        (found,) = detector.detect([whole])
        check(detector, found, whole)
        assert len(found) == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (3, 3)])
def test_chips_smaller_than_any_filter(name: str, size: tuple[int, int]) -> None:
    pixels = ground()
    detector = ready(name, pixels)
    window = Window(30, 30, *size)
    for valid in (None, np.random.default_rng(1).random(pixels.shape[1:]) < 0.5):
        small = chip(detector, pixels, valid, window)
        (found,) = detector.detect([small])
        check(detector, found, small)


def test_a_chip_is_not_changed_and_gives_the_same_alone_and_in_a_batch(name: str) -> None:
    pixels = ground()
    valid = np.random.default_rng(2).random(pixels.shape[1:]) < 0.98
    detector = ready(name, pixels, valid)
    chips = [chip(detector, pixels, valid, Window(x, 10, 100, 100)) for x in (0, 60)]
    before = [(c.pixels.copy(), None if c.valid is None else c.valid.copy()) for c in chips]
    together = [rows_of(found) for found in detector.detect(chips)]
    alone = [rows_of(detector.detect([c])[0]) for c in chips]
    assert together == [rows_of(found) for found in detector.detect(chips)]
    for one, two in zip(together, alone, strict=True):
        assert_alike(name, one, two)
    for c, (old, mask) in zip(chips, before, strict=True):
        assert np.array_equal(c.pixels, old)
        assert mask is None or np.array_equal(c.valid, mask)


def test_tiling_cannot_be_seen(name: str) -> None:
    pixels = ground()
    valid = np.ones(pixels.shape[1:], np.bool_)
    valid[:40, :30] = False
    detector = ready(name, pixels, valid)
    if not detector.needs.is_local:
        assert detector.needs.margin_px > 1  # what a seam is settled with
        pytest.skip("says that it isn't local")
    stride = detector.needs.stride_px
    one = searched(detector, pixels, valid, BANDS, 1000)
    assert len(one) > 5
    for tile, origin in ((32, (0, 0)), (47, (5, 13)), (128, (64, 1))):
        tile, origin = (
            -(-tile // stride) * stride,
            (origin[0] // stride * stride, origin[1] // stride * stride),
        )
        assert_alike(name, searched(detector, pixels, valid, BANDS, tile, origin), one)


def test_a_map_of_scores_is_given_when_asked_for(name: str) -> None:
    pixels = ground()
    detector = ready(name, pixels)
    whole = chip(detector, pixels)
    (found,) = detector.detect([whole])
    assert found.score_map is None
    step = detector.needs.map_px
    assert (step is not None) == (name in detectors.with_score_map())
    if step is None:
        pytest.skip("reads its detections off no map")
    assert detector.needs.stride_px % step == 0
    (same,) = detector.detect([dataclasses.replace(whole, wants_map=True)])
    assert rows_of(same) == rows_of(found)
    scores = same.score_map
    assert scores is not None
    assert (scores.dtype, scores.shape) == (
        np.float32,
        (len(detector.classes), -(-whole.grid.height // step), -(-whole.grid.width // step)),
    )
    known = scores[~np.isnan(scores)]
    assert len(known) > 0
    assert ((known >= 0) & (known <= 1)).all()


@pytest.fixture(scope="module")
def imported_with() -> dict[str, list[str]]:
    """What each detector's module imports beside itself that takes seconds, of those not imported before."""
    code = (
        "import sys, json, importlib\n"
        "modules, heavy, found, before = json.loads(sys.argv[1]), sys.argv[2:], {}, set()\n"
        "for name, module in modules.items():\n"
        "    importlib.import_module(module)\n"
        "    found[name] = [each for each in heavy if each in sys.modules and each not in before]\n"
        "    before.update(found[name])\n"
        "print(json.dumps(found))"
    )
    modules = {name: place.partition(":")[0] for name, place in TABLE.items()}
    heavy = ("torch", "torchvision", "rasterio", "geopandas")
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(modules), *heavy], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_it_is_imported_without_what_it_does_not_need(name: str, imported_with: dict[str, list[str]]) -> None:
    assert imported_with[name] == []
