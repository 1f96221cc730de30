"""Boxes from points: the outline that stands out most, or none."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import shapely

from ecodetect.annotations.annotated_raster import spacing
from ecodetect.annotations.laying import read_annotations
from ecodetect.annotations.options import AnnotationOptions
from ecodetect.annotations.outlining import box_around, outlined
from ecodetect.annotations.sources import gather
from ecodetect.raster.reading import open_raster
from ecodetect.sizes import Length

SAMPLES = Path(__file__).parents[1] / "sample_data"


@pytest.mark.parametrize("bright", [True, False])
def test_a_disc_gets_its_box(bright: bool) -> None:
    rng = np.random.default_rng(0)
    picture = np.full((80, 90), 100, np.float32)
    cv2.ellipse(picture, (40, 35), (14, 9), 0, 0, 360, 180.0 if bright else 30.0, -1)
    picture += rng.normal(0, 3, picture.shape).astype(np.float32)
    box = box_around(picture, 44.0, 33.0)  # people don't click on the middle
    assert box is not None
    np.testing.assert_allclose(box, [26, 26, 55, 45], atol=1.5)


def test_where_nothing_is_nothing_is_made_up() -> None:
    noise = np.random.default_rng(0).normal(100, 10, (80, 80)).astype(np.float32)
    assert box_around(noise, 40.0, 40.0) is None
    assert box_around(np.zeros((80, 80), np.float32), 40.0, 40.0) is None


def test_boxes_of_rendered_shrubs_are_right_where_there_are_any() -> None:
    with open_raster(str(SAMPLES / "dryland.tif")) as raster:
        truth = read_annotations(SAMPLES / "dryland_shrubs.geojson", raster.grid).geometry
        points = np.asarray(shapely.centroid(truth), object)
        shapes, found = outlined(raster, points, spacing(shapely.get_coordinates(points)))
    assert found.sum() >= 45
    assert (shapely.area(shapes) > 0).tolist() == found.tolist()
    boxes = shapely.box(*shapely.bounds(truth[found]).T)
    common = shapely.area(shapely.intersection(shapes[found], boxes))
    iou = common / shapely.area(shapely.union(shapes[found], boxes))
    assert (iou > 0.5).mean() > 0.95


def test_training_takes_outlines_for_points_and_says_for_how_many(tmp_path: Path) -> None:
    with open_raster(str(SAMPLES / "dryland.tif")) as raster:
        truth = read_annotations(SAMPLES / "dryland_shrubs.geojson", raster.grid).geometry
    rows = "\n".join(f"{x},{y}" for x, y in shapely.get_coordinates(shapely.centroid(truth)))
    points = tmp_path / "points.csv"
    points.write_text(f"x,y\n{rows}\n")
    pair = [SAMPLES / "dryland.tif", points]
    plain = gather(pair, AnnotationOptions()).sources[0]
    assert not np.isfinite(plain.size_px).any()
    made = gather(pair, AnnotationOptions(radius="contour"))
    assert 45 <= np.isfinite(made.sources[0].size_px).sum() < 80
    assert any("of 80 points, taken as their box" in str(note) for note in made.notes)
    fixed = gather(pair, AnnotationOptions(radius=Length.parse("2m", name="radius"))).sources[0]
    assert np.isfinite(fixed.size_px).all()
