"""Outlines: what is learned lies where the object lies, whatever moved it, and masks become polygons."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely

pytest.importorskip("torch")

from ecodetect.annotations.sample import Objects, Sample
from ecodetect.detectors import mask_rcnn
from ecodetect.detectors.learned import Answer
from ecodetect.detectors.mask_rcnn import pixels_of
from ecodetect.training.augmentation import NONE, Augmentations, Light, augment, mosaic

SIDE = 96
SHAPES = [
    shapely.Polygon([(20, 30), (50, 24), (58, 40), (40, 44), (38, 60), (24, 58)]),
    shapely.Point(68.5, 66.5).buffer(11.0),
]


def drawn() -> Sample:
    """Two objects of 1 on 0, with their outlines."""
    shape = np.array(SHAPES, dtype=object)
    image = np.any([pixels_of(each, SIDE, SIDE) for each in shape], axis=0).astype(np.float32)
    box = shapely.bounds(shape)
    yes = np.ones((SIDE, SIDE), bool)
    objects = Objects((box[:, :2] + box[:, 2:]) / 2, box, np.zeros(2, np.int64), np.zeros(2), shape)
    return Sample(image[None], yes, yes, ~yes, objects)


def overlap(one: np.ndarray, two: np.ndarray) -> float:
    return float((one & two).sum() / (one | two).sum())


@pytest.mark.parametrize(
    "kinds",
    [
        replace(NONE, turns=True),
        replace(NONE, rotation=40.0),
        replace(NONE, scale=0.5, translation=0.1),
        replace(NONE, elastic=4.0),
    ],
)
def test_outlines_move_with_their_pixels(kinds: Augmentations) -> None:
    sample = drawn()
    light = Light(("grey",), np.zeros(1, np.float32), np.ones(1, np.float32))
    for seed in range(5):
        moved = augment(sample, np.random.default_rng(seed), kinds, light)
        assert moved.objects.shape is not None
        there = np.any([pixels_of(each, SIDE, SIDE) for each in moved.objects.shape], axis=0)
        assert overlap(there, moved.image[0] > 0.5) > 0.93
        assert np.allclose(shapely.bounds(moved.objects.shape), moved.objects.box)


def test_outlines_are_cut_by_a_mosaic_as_the_pixels_are() -> None:
    for seed in range(5):
        made = mosaic([drawn()] * 4, np.random.default_rng(seed))
        assert made.objects.shape is not None
        there = np.any([pixels_of(each, SIDE, SIDE) for each in made.objects.shape], axis=0)
        assert overlap(there & ~made.ignored, (made.image[0] > 0.5) & ~made.ignored) > 0.97


@pytest.mark.parametrize("box", [(10.0, 20.0, 50.0, 44.0), (3.25, 4.5, 9.75, 30.0)])
def test_a_mask_becomes_the_outline_that_it_shows(box: tuple[float, float, float, float]) -> None:
    """An ellipse that fills its box, drawn by its share of each part."""
    side = 28
    fine = (np.arange(side * 8) + 0.5) / (side * 8) * 2 - 1
    inside = (fine[None] ** 2 + fine[:, None] ** 2 <= 1).astype(np.float32)
    mask = inside.reshape(side, 8, side, 8).mean(axis=(1, 3))
    ((shapes, *_),) = mask_rcnn.outlined(
        [np.empty(0), mask[None, None]], [Answer(np.array([box]), np.ones(1), np.zeros(1, np.int64))]
    )
    x0, y0, x1, y1 = box
    unit = shapely.Point(0, 0).buffer(1.0, quad_segs=64)
    middle, half = np.array([x0 + x1, y0 + y1]) / 2, np.array([x1 - x0, y1 - y0]) / 2
    wanted = shapely.transform(unit, lambda xy: xy * half + middle)
    assert shapely.area(shapes[0].intersection(wanted)) / shapely.area(shapes[0].union(wanted)) > 0.94
    assert shapely.box(*box).buffer(1e-6).contains(shapes[0])


def test_a_box_without_a_mask_stays_one() -> None:
    box = np.array([[1.0, 2.0, 9.0, 8.0]])
    ((shapes, score, *_),) = mask_rcnn.outlined(
        [np.empty(0), np.zeros((1, 1, 28, 28), np.float32)], [Answer(box, np.ones(1), np.zeros(1, np.int64))]
    )
    assert shapes[0].equals(shapely.box(*box[0]))
    assert len(score) == 1


def test_points_boxes_and_polygons_have_outlines(tmp_path: Path) -> None:
    """A polygon is its own, a box the box, a point with a radius the circle, any other point none."""
    from ecodetect.annotations.laid import outlines_of

    square = shapely.box(2, 2, 6, 6)
    shapes = np.array([SHAPES[0], square, shapely.Point(10, 10), shapely.Point(20, 20)], dtype=object)
    boxes = np.array([[0.0] * 4, [2, 2, 6, 6], [7, 7, 13, 13], [np.nan] * 4])
    made = outlines_of(shapes, boxes)
    assert made[0].equals(SHAPES[0])
    assert made[1].equals(square)
    assert made[2].area == pytest.approx(np.pi * 9, rel=0.02)
    assert made[3].is_empty
