"""Resampling: a part is exactly that part of the whole; means, ramps and masks come out right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ecodetect.raster.resampling import axis, resample


def part(
    pixels: NDArray[Any], valid: Any, factors: tuple[float, float], x: int, y: int, width: int, height: int
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """A window of the resampled whole, made from the source pixels it needs and no others."""
    rows = axis(y, height, factors[1], pixels.shape[1])
    columns = axis(x, width, factors[0], pixels.shape[2])
    cut = (slice(rows.start, rows.stop), slice(columns.start, columns.stop))
    mask = None if valid is None else valid[cut]
    if mask is not None and mask.all():
        mask = None  # as a reader would have it
    out, out_valid = resample(
        pixels[:, cut[0], cut[1]], mask, rows.from_source(rows.start), columns.from_source(columns.start)
    )
    return out, np.ones(out.shape[1:], bool) if out_valid is None else out_valid


@settings(max_examples=60)
@given(st.data())
def test_a_window_is_exactly_a_crop_of_the_whole(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    dtype = data.draw(st.sampled_from(["uint8", "int16", "uint16", "int32", "float32", "float64"]))
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    shape = (2, height, width)
    pixels = (rng.normal(size=shape) * 50 + 100).astype(dtype)
    valid = None
    if data.draw(st.booleans()):
        valid = rng.random((height, width)) < data.draw(st.sampled_from([0.3, 0.9, 0.99]))
        pixels[:, ~valid] = np.nan if np.dtype(dtype).kind == "f" else 77
    factors = (data.draw(st.floats(0.21, 7)), data.draw(st.floats(0.21, 7)))
    wide, high = max(1, int(np.ceil(width / factors[0]))), max(1, int(np.ceil(height / factors[1])))
    whole, whole_valid = part(pixels, valid, factors, 0, 0, wide, high)
    x, y = data.draw(st.integers(0, wide - 1)), data.draw(st.integers(0, high - 1))
    w, h = data.draw(st.integers(1, wide - x)), data.draw(st.integers(1, high - y))
    some, some_valid = part(pixels, valid, factors, x, y, w, h)
    assert whole.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(some_valid, whole_valid[y : y + h, x : x + w])
    np.testing.assert_array_equal(some, whole[:, y : y + h, x : x + w])  # bit for bit


@given(st.floats(0.2, 9), st.floats(0.2, 9), st.sampled_from(["uint8", "uint16", "float32"]), st.booleans())
def test_a_plain_stays_a_plain(fx: float, fy: float, dtype: str, holed: bool) -> None:
    pixels = np.full((1, 31, 37), 201, dtype)
    valid = np.random.default_rng(1).random((31, 37)) < 0.6 if holed else None
    out, out_valid = part(pixels, valid, (fx, fy), 0, 0, max(1, int(37 / fx)), max(1, int(31 / fy)))
    np.testing.assert_allclose(out[0][out_valid], 201, rtol=1e-6)
    if not holed:
        assert out_valid.all()


@pytest.mark.parametrize("factor", [2, 3, 8])
def test_whole_factors_are_means(factor: int) -> None:
    pixels = np.random.default_rng(2).integers(0, 60000, (3, 24, 48)).astype(np.uint16)
    out, valid = part(pixels, None, (factor, factor), 0, 0, 48 // factor, 24 // factor)
    means = pixels.reshape(3, 24 // factor, factor, 48 // factor, factor).mean(axis=(2, 4))
    np.testing.assert_array_equal(out, np.rint(means))
    assert valid.all()


def test_shares_of_pixels_count() -> None:
    pixels = np.array([[[10.0, 20.0, 60.0]]])
    out, _ = part(pixels, None, (1.5, 1.0), 0, 0, 2, 1)
    np.testing.assert_allclose(out[0, 0], [(10 + 20 / 2) / 1.5, (20 / 2 + 60) / 1.5])


def test_enlarging_is_bilinear_between_centres() -> None:
    ramp = np.arange(8.0)[None, None].repeat(5, axis=1)
    out, valid = part(ramp, None, (0.25, 0.25), 0, 0, 32, 20)
    centres = (np.arange(32) + 0.5) / 4 - 0.5
    np.testing.assert_allclose(out[0, 7], np.clip(centres, 0, 7), atol=1e-6)
    assert valid.all()


def test_invalid_pixels_have_no_weight_and_half_is_enough() -> None:
    pixels = np.array([[[10, 255, 7, 255], [30, 255, 255, 255]]], np.uint8)
    valid = np.array([[True, False, True, False], [True, False, False, False]])
    out, out_valid = part(pixels, valid, (2, 2), 0, 0, 2, 1)
    assert out_valid.tolist() == [[True, False]]  # two of four, one of four
    assert out.tolist() == [[[20, 0]]]


def test_beyond_the_source_is_not_valid() -> None:
    pixels = np.full((1, 5, 5), 9, np.uint8)
    out, valid = part(pixels, None, (4, 4), 0, 0, 2, 2)  # the second pixels reach 3 px beyond
    assert valid.tolist() == [[True, False], [False, False]]
    assert out[0, 0, 0] == 9


def test_enlarged_masks_keep_their_place() -> None:
    valid = np.array([[True, False]])
    out, out_valid = part(np.array([[[5, 200]]], np.uint8), valid, (0.5, 0.5), 0, 0, 4, 2)
    assert out_valid.tolist() == [[True, True, False, False]] * 2
    assert out[0, :, :2].tolist() == [[5, 5], [5, 5]]
