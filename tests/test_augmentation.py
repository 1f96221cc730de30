"""Augmentation: objects move with their pixels, masks tell the truth, the same chance gives the same."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ecodetect.annotations.sample import Objects, Sample
from ecodetect.errors import UserError
from ecodetect.training.augmentation import NONE, Augmentations, Light, augment, mosaic

FILL = -3.0
GEOMETRY = replace(NONE, turns=True, rotation=40.0, scale=0.3, translation=0.05)
BENT = replace(GEOMETRY, elastic=3.0)
ALL = Augmentations(translation=0.05, elastic=2.0, greyscale=0.5, band_dropout=0.5)


def spots(xy: NDArray[np.float64], height: int, width: int, sigma: float = 2.0) -> NDArray[np.float32]:
    """A bright spot at each place."""
    y, x = np.mgrid[:height, :width] + 0.5
    square = (x - xy[:, 0, None, None]) ** 2 + (y - xy[:, 1, None, None]) ** 2
    image: NDArray[np.float32] = np.exp(-square / (2 * sigma**2)).sum(axis=0).astype(np.float32)
    return image


def sample_of(seed: int = 0, bands: int = 1, height: int = 96, width: int = 96) -> Sample:
    """Spots far enough apart and from the edge, one object on each."""
    rng = np.random.default_rng(seed)
    lattice = np.stack(np.meshgrid(np.arange(24, width - 16, 24), np.arange(24, height - 16, 24)), axis=-1)
    xy = lattice.reshape(-1, 2) + rng.uniform(-3, 3, (lattice.size // 2, 2))
    image = np.stack([spots(xy, height, width) * (1 + band) for band in range(bands)])
    yes, no = np.ones((height, width), bool), np.zeros((height, width), bool)
    number = len(xy)
    objects = Objects.about(xy, np.tile([6.0, 4.0], (number, 1)), np.arange(number), np.full(number, 2.0))
    return Sample(image, yes, yes.copy(), no, objects)


def light_for(sample: Sample) -> Light:
    names = ("red", "green", "blue", "nir", "a", "b", "c")[: len(sample.image)]
    return Light.of([sample], names)


def centroid(image: NDArray[np.float32], xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the brightness within 7 px."""
    height, width = image.shape
    y, x = np.mgrid[:height, :width] + 0.5
    weight = image * ((x - xy[0]) ** 2 + (y - xy[1]) ** 2 <= 49)
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), bends=st.booleans(), size=st.sampled_from([None, 64, 80]))
def test_objects_move_with_their_pixels(seed: int, bends: bool, size: int | None) -> None:
    base = sample_of(seed)
    # Each pixel holds its own place, so what lies under a moved object says where it was.
    y, x = np.mgrid[:96, :96].astype(np.float32) + 0.5
    sample = replace(base, image=np.stack([x, y]))
    kinds = BENT if bends else GEOMETRY
    moved = augment(sample, np.random.default_rng(seed), kinds, light_for(sample), fill=FILL, size=size)
    height, width = moved.valid.shape
    for before, after in zip(base.objects.xy, moved.objects.xy, strict=True):
        column, row = np.floor(after - 0.5).astype(int)
        if not (0 <= column < width - 1 and 0 <= row < height - 1):
            continue
        square = (slice(None), slice(row, row + 2), slice(column, column + 2))
        if moved.valid[square[1:]].all():
            across, down = after - 0.5 - (column, row)
            weights = np.outer([1 - down, down], [1 - across, across])
            np.testing.assert_allclose((moved.image[square] * weights).sum(axis=(1, 2)), before, atol=0.1)
    if size is None:
        assert moved.valid.mean() > 0.4


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_turns_and_flips_are_exact(seed: int) -> None:
    sample = sample_of(3, bands=5, height=81, width=96)
    moved = augment(
        sample, np.random.default_rng(seed), replace(NONE, turns=True), light_for(sample), size=64
    )
    assert moved.valid.all()
    assert moved.known.all()
    inside = (moved.objects.xy > 12).all(axis=1) & (moved.objects.xy < 52).all(axis=1)
    for xy in moved.objects.xy[inside]:
        np.testing.assert_allclose(centroid(moved.image[0], xy), xy, atol=0.05)
    # Pixels are moved, never mixed: each value is one of the sample's.
    assert np.isin(moved.image[0].round(5), sample.image[0].round(5)).all()
    assert set(map(tuple, np.round(moved.objects.size, 9))) <= {(6.0, 4.0), (4.0, 6.0)}


def test_nothing_changes_nothing() -> None:
    sample = sample_of(1, bands=3)
    same = augment(sample, np.random.default_rng(0), NONE, light_for(sample))
    np.testing.assert_allclose(same.image, sample.image, atol=1e-6)
    np.testing.assert_array_equal(same.objects.xy, sample.objects.xy)
    np.testing.assert_array_equal(same.valid, sample.valid)


@pytest.mark.parametrize("kinds", [GEOMETRY, BENT, ALL])
def test_masks_tell_the_truth(kinds: Augmentations) -> None:
    base = sample_of(2)
    valid, known, ignored = base.valid.copy(), base.known.copy(), base.ignored.copy()
    valid[:, :20], known[:30], ignored[70:, 70:] = False, False, True
    # What isn't valid is NaN here, so that a pixel made of it would show.
    image = np.where(valid, 1.0, np.nan).astype(np.float32)[None]
    image[:, ~valid] = FILL
    beside = ~known & (np.arange(len(known)) > 15)[:, None]
    sample = Sample(image, valid, known, ignored, base.objects, beside)
    light = Light(("grey",), np.zeros(1, np.float32), np.ones(1, np.float32))
    for seed in range(10):
        only_moved = replace(
            kinds, brightness=0, gain=0, contrast=0, gamma=0, noise=0, blur=0, saturation=0, hue=0
        )
        moved = augment(sample, np.random.default_rng(seed), only_moved, light, fill=FILL)
        assert (moved.image[0][moved.valid] > 0.99).all(), "a pixel without data counts as valid"
        assert (moved.image[0][~moved.valid] == FILL).all()
        assert not (moved.known & ~moved.valid).any()
        assert moved.valid.any()
        assert moved.ignored.any() or kinds.translation
        assert not moved.known.all()
        assert moved.beside is not None
        assert moved.beside.any() or kinds.translation
        assert not (moved.beside & (moved.known | ~moved.valid)).any()


def test_sizes_and_accuracies_grow_with_the_scale() -> None:
    sample = sample_of(5)
    moved = augment(sample, np.random.default_rng(4), replace(NONE, scale=0.5), light_for(sample))
    before, after = sample.objects, moved.objects
    factor = np.linalg.norm(after.xy[1] - after.xy[0]) / np.linalg.norm(before.xy[1] - before.xy[0])
    assert abs(factor - 1) > 0.05
    np.testing.assert_allclose(after.size, before.size * factor)
    np.testing.assert_allclose(after.accuracy_px, before.accuracy_px * factor)


def test_an_unknown_size_stays_unknown() -> None:
    base = sample_of(6)
    unknown = replace(base.objects, box=np.full((len(base.objects), 4), np.nan))
    sample = replace(base, objects=unknown)
    assert np.isnan(augment(sample, np.random.default_rng(1), ALL, light_for(sample)).objects.size).all()


@pytest.mark.parametrize("bands", [1, 3, 4, 7])
def test_any_number_of_bands_and_empty_samples(bands: int) -> None:
    base = sample_of(7, bands=bands)
    nobody = base.objects[:0]
    for sample in (base, replace(base, objects=nobody), replace(base, valid=np.zeros_like(base.valid))):
        result = augment(sample, np.random.default_rng(3), ALL, light_for(base), fill=FILL, size=48)
        assert result.image.shape == (bands, 48, 48)
        assert result.image.dtype == np.float32
        assert np.isfinite(result.image).all()
        assert len(result.objects) == len(sample.objects)


def test_the_same_chance_gives_the_same_sample() -> None:
    sample = sample_of(8, bands=4)
    kept = sample.image.copy()
    one, other, third = (
        augment(sample, np.random.default_rng(seed), ALL, light_for(sample)) for seed in (9, 9, 10)
    )
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.objects.xy, other.objects.xy)
    assert not np.array_equal(one.image, third.image)
    np.testing.assert_array_equal(sample.image, kept)


VALUES = ("brightness", "gain", "contrast", "gamma", "saturation", "hue", "noise", "blur")


@pytest.mark.parametrize("name", [*VALUES, "greyscale", "band_dropout"])
def test_each_kind_of_light_changes_pixels_and_moves_nothing(name: str) -> None:
    sample = sample_of(9, bands=4)
    sample.image[1] *= 0.5
    kinds = replace(NONE, **{name: 1.0 if name in ("greyscale", "band_dropout") else 0.5})
    results = [augment(sample, np.random.default_rng(s), kinds, light_for(sample)) for s in range(20)]
    strongest = max(float(np.abs(each.image - sample.image).max()) for each in results)
    assert strongest > 1e-3
    for each in results:
        np.testing.assert_array_equal(each.objects.xy, sample.objects.xy)


def test_grey_pixels_have_no_hue() -> None:
    base = sample_of(10, bands=3)
    sample = replace(base, image=np.repeat(base.image[:1], 3, axis=0))
    kinds = replace(NONE, saturation=1.0, hue=60.0, greyscale=0.5)
    for seed in range(5):
        result = augment(sample, np.random.default_rng(seed), kinds, light_for(sample))
        np.testing.assert_allclose(result.image, sample.image, atol=1e-5)


def test_strengths_are_checked() -> None:
    with pytest.raises(UserError, match="rotation must be 0"):
        Augmentations(rotation=-1)
    with pytest.raises(UserError, match="greyscale must be at most 1"):
        Augmentations(greyscale=2)
    assert all(not getattr(NONE, each.name) for each in fields(NONE))
    assert NONE.widening == 1
    assert 1 < Augmentations().widening < 1.5


def test_the_parts_of_a_mosaic_keep_their_objects() -> None:
    rng = np.random.default_rng(3)
    parts = []
    for seed in range(4):
        base = sample_of(seed)
        y, x = np.mgrid[:96, :96].astype(np.float32) + 0.5
        parts.append(replace(base, image=np.stack([x, y, np.full_like(x, seed)])))
    made = mosaic(parts, rng)
    assert made.image.shape == (3, 96, 96)
    assert {0, 1, 2, 3} == set(np.unique(made.image[2]))
    # Each pixel says where it was, so each object must stand where its own place is shown.
    column, row = np.floor(made.objects.xy).astype(int).T
    seen = made.image[:, row, column]
    for (x, y, seed), place in zip(seen.T, made.objects.xy % 1, strict=True):
        there = np.array([x, y]) - 0.5 + place
        assert np.abs(parts[int(seed)].objects.xy - there).max(axis=1).min() < 1e-4
    # A box doesn't reach over a seam; what is cut off is ignored, and nothing else.
    for box, at in zip(made.objects.box, zip(row, column, strict=True), strict=True):
        corners = np.floor(box - (0, 0, 1e-6, 1e-6)).astype(int)
        assert len(np.unique(made.image[2, corners[1] : corners[3] + 1, corners[0] : corners[2] + 1])) == 1
        assert not made.ignored[at]
    assert made.ignored.mean() < 0.1


def test_boxes_about_another_place_than_the_centre_move_with_it() -> None:
    base = sample_of()
    box = np.hstack([base.objects.xy - (1, 2), base.objects.xy + np.array([5, 8])])
    objects = Objects(base.objects.xy, box, base.objects.label, base.objects.accuracy_px)
    kinds = replace(NONE, turns=True)
    for seed in range(8):
        moved = augment(
            replace(base, objects=objects), np.random.default_rng(seed), kinds, light_for(base), fill=FILL
        ).objects
        off = np.sort(np.abs(moved.box - np.tile(moved.xy, 2)), axis=1)
        np.testing.assert_allclose(off, np.tile([1.0, 2.0, 5.0, 8.0], (len(off), 1)), atol=1e-9)
