"""`blobs`: discs come back, cells are counted, tiling can't be seen."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from cutting import built
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from test_threshold import RGB, holes

from ecodetect.detections import Detections
from ecodetect.detectors.blobs import SOFT, ladder
from ecodetect.detectors.protocol import Scene
from ecodetect.detectors.table import build
from ecodetect.errors import UserError
from ecodetect.grid import Window
from ecodetect.settling import settle
from ecodetect.testing import chip_of, rows_of, searched

GREY = ("grey",)


def disc(diameter: float, x: float = 40.0, y: float = 40.0, size: int = 80, contrast: float = 100) -> Any:
    """A bright disc on grey ground, drawn 16 times finer and averaged; (1, size, size) uint8."""
    at = (np.arange(size * 16) + 0.5) / 16
    inside = (at[None, :] - x) ** 2 + (at[:, None] - y) ** 2 < (diameter / 2) ** 2
    share = inside.reshape(size, 16, size, 16).mean(axis=(1, 3))
    return np.round(50 + contrast * share).astype(np.uint8)[None]


def culture(seed: int, width: int = 150, height: int = 110) -> NDArray[np.uint8]:
    """Soft cells, some touching, on uneven ground with noise, in three bands of unequal strength."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width))
    for _ in range(int(rng.integers(5, 60))):
        at = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        cv2.circle(image, at, int(rng.integers(3, 9)), float(rng.uniform(40, 200)), -1)
    image = cv2.GaussianBlur(image, (0, 0), 1.5) + np.linspace(0, 30, width)
    noisy = np.stack([image * share + rng.normal(5, 3, image.shape) for share in (0.1, 1.0, 0.3)])
    return np.clip(noisy, 0, 255).astype(np.uint8)


def whole(
    pixels: NDArray[Any], bands: tuple[str, ...] = GREY, valid: Any = None, **options: str
) -> Detections:
    """What stays when the candidates found in one piece are settled."""
    detector = built("blobs", pixels, valid, bands, **options)
    chosen = [bands.index(band) for band in detector.needs.bands]
    window = Window(0, 0, pixels.shape[2], pixels.shape[1])
    (found,) = detector.detect([chip_of(pixels[chosen], valid, detector.needs.bands, window)])
    settling = detector.needs.settling
    assert settling is not None
    return found[settle(found.bounds(), found.score, criterion=settling.criterion, limit=settling.limit)]


@pytest.mark.parametrize("diameter", [6, 10, 16, 24])
@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5])
def test_a_disc_comes_back(diameter: float, shift: float) -> None:
    image = disc(diameter, 40 + shift, 40 - shift)
    found = whole(image, objects="bright", min_diameter=f"{diameter / 2}px", max_diameter=f"{2 * diameter}px")
    strongest = found[np.argsort(found.score)[-1:]]
    np.testing.assert_allclose(strongest.geometry[0], (40 + shift, 40 - shift), atol=0.13)
    assert strongest.diameter is not None
    assert strongest.diameter[0] / SOFT == pytest.approx(diameter, rel=0.15)
    # The contrast of the best scale; between scales the response is lower.
    assert strongest.score[0] * 255 == pytest.approx(100, rel=0.12)


def test_what_is_not_stated_is_taken_from_the_raster() -> None:
    image = culture(5)
    detector = built("blobs", image, None, RGB)
    assert detector.settings["bands"] == ["green"]
    assert detector.settings["objects_found"] == "bright"
    low, high = detector.settings["diameters_px"]
    assert 5 < low <= high < 16
    dark = built("blobs", 255 - image, None, RGB)
    assert dark.settings["objects_found"] == "dark"
    assert rows_of(whole(image, RGB)) == rows_of(whole(255 - image, RGB))


def test_touching_discs_are_two_and_texture_is_none() -> None:
    pair = np.maximum(disc(14, 30, 40), disc(14, 44, 40))
    assert len(whole(pair, min_diameter="12px", max_diameter="16px", objects="bright")) == 2
    rough = disc(40).astype(int)
    rough[0, 25:56:6, 25:56:6] += 60
    found = whole(rough.astype(np.uint8), min_diameter="6px", max_diameter="48px", objects="bright")
    near = found[np.hypot(*(found.geometry - 40).T) < 14]
    assert len(near) == 1


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float64"])
def test_nothing_in_a_constant_or_an_empty_raster(kind: str) -> None:
    image = np.full((1, 60, 60), 100, kind)
    for valid in (None, np.zeros((60, 60), np.bool_)):
        found = whole(image, GREY, valid)
        assert len(found) == 0
        assert found.diameter is not None


def test_invalid_pixels_make_no_spots() -> None:
    image = disc(12)
    image[0, :, 60:] = 255
    image[0, 10:14, 10:14] = 255
    valid = image[0] < 255
    found = whole(image, GREY, valid, objects="bright", contrast="20", min_diameter="10px")
    np.testing.assert_allclose(found.geometry, [(40, 40)], atol=0.2)


def test_cells_of_the_sample_are_counted(sample_data: Path) -> None:
    image = cv2.imread(str(sample_data / "cells.png"), cv2.IMREAD_GRAYSCALE)
    with (sample_data / "cells.csv").open(encoding="utf-8", newline="") as file:
        truth = np.array([[float(row["x"]), float(row["y"])] for row in csv.DictReader(file)])
    found = whole(np.asarray(image, np.uint8)[None])
    apart = np.hypot(*(truth[:, None] - found.geometry[None]).transpose(2, 0, 1))
    one, other = linear_sum_assignment(np.minimum(apart, 11))
    matched = np.count_nonzero(apart[one, other] < 11)
    assert abs(len(found) - len(truth)) < 0.2 * len(truth)
    assert matched > 0.95 * len(found)


def test_the_ladder_covers_what_is_asked() -> None:
    for low, high in ((2, 2), (6, 64), (10, 14), (90, 100)):
        scales = ladder(low, high)
        assert scales[0].diameter <= max(low, 3)
        assert scales[-1].diameter >= 0.8 * high
        assert all(one.outer == other.inner for one, other in pairwise(scales))
        # Sums of 16-bit pixels over three boxes are whole numbers of float64.
        assert 65535 * scales[-1].outer ** 6 < 2**53


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"contrast": "0"}, "contrast must lie"),
        ({"min_diameter": "1px"}, "Diameters must lie in 2"),
        ({"max_diameter": "300px"}, "coarser gsd"),
        ({"min_diameter": "30px", "max_diameter": "20px"}, "the smallest first"),
        ({"min_diameter": "3m"}, "state its pixel size"),
        ({"gsd": "2px"}, "gsd must be a length"),
        ({"objects": "green"}, "one of auto, dark, bright"),
        ({"band": "blu"}, "choose one of auto, red"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        build("blobs", Scene(RGB, None, "uint8", (0, 255)), options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"min_diameter": "5px", "max_diameter": "24px"},
        {"objects": "dark", "contrast": "4", "band": "red"},
    ],
)
@given(
    seed=st.integers(0, 10_000),
    tile=st.integers(9, 90),
    origin=st.tuples(st.integers(0, 8), st.integers(0, 8)),
    kind=st.sampled_from(["uint8", "uint8", "uint16", "float32"]),
    masked=st.booleans(),
)
@settings(max_examples=4, deadline=None, phases=[Phase.generate])
def test_any_cut_gives_the_same_candidates(
    options: dict[str, str], seed: int, tile: int, origin: tuple[int, int], kind: str, masked: bool
) -> None:
    pixels = culture(seed, 110, 80).astype(kind)
    valid = holes(seed, pixels.shape[1:]) if masked else None
    detector = built("blobs", pixels, valid, RGB, **options)
    one = searched(detector, pixels, valid, RGB, 1000)
    assert searched(detector, pixels, valid, RGB, tile, origin) == one
