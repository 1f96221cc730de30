"""The sample scenes are what their script renders, and their truth lies where the pixels say."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.features
import rasterio.warp
import shapely
import shapely.geometry
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags


@pytest.fixture(scope="module")
def make(sample_data: Path) -> ModuleType:
    """`sample_data/make.py` as a module."""
    spec = importlib.util.spec_from_file_location("sample_data_make", sample_data / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def again(make: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything rendered once more."""
    folder = tmp_path_factory.mktemp("sample_data") / "new"
    make.main(["--out", str(folder)])
    return folder


def pixels(path: Path) -> NDArray[np.uint8]:
    with rasterio.open(path) as raster:
        array: NDArray[np.uint8] = raster.read()
    return array


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def features(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["features"]
    return found


@pytest.fixture(scope="module")
def crowns(sample_data: Path) -> NDArray[np.int32]:
    """The id of the shrub at each pixel of dryland.tif, 0 for none, burnt from the committed GeoJSON."""
    with rasterio.open(sample_data / "dryland.tif") as raster:
        shapes = [
            (rasterio.warp.transform_geom("EPSG:4326", raster.crs, feature["geometry"]), feature["id"])
            for feature in features(sample_data / "dryland_shrubs.geojson")
        ]
        burnt: NDArray[np.int32] = rasterio.features.rasterize(
            shapes, out_shape=raster.shape, transform=raster.transform, dtype="int32"
        )
    return burnt


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dryland.tif", "cells.png"])
def test_rendering_again_gives_the_committed_pixels(name: str, sample_data: Path, again: Path) -> None:
    assert np.array_equal(pixels(again / name), pixels(sample_data / name))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dryland_shrubs.csv", "cells.csv"])
def test_rendering_again_gives_the_committed_points(name: str, sample_data: Path, again: Path) -> None:
    assert (again / name).read_bytes() == (sample_data / name).read_bytes().replace(b"\r\n", b"\n")


@pytest.mark.slow
def test_rendering_again_gives_the_committed_crowns(sample_data: Path, again: Path) -> None:
    name = "dryland_shrubs.geojson"
    for new, old in zip(features(again / name), features(sample_data / name), strict=True):
        assert new["properties"] == old["properties"]
        # PROJ's releases may differ in the last digit written.
        np.testing.assert_allclose(
            new["geometry"]["coordinates"], old["geometry"]["coordinates"], rtol=0, atol=2e-8
        )


def test_dryland_is_a_tiled_geotiff_whose_fourth_band_is_not_alpha(sample_data: Path) -> None:
    with rasterio.open(sample_data / "dryland.tif") as raster:
        assert raster.descriptions == ("red", "green", "blue", "nir")
        assert raster.colorinterp[:3] == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        assert raster.colorinterp[3] != ColorInterp.alpha
        assert all(MaskFlags.alpha not in flags for flags in raster.mask_flag_enums)
        assert raster.crs.to_epsg() == 32630
        assert raster.res == (0.2, 0.2)
        assert raster.block_shapes == [(256, 256)] * 4
        assert raster.nodata == 0


def test_only_the_upper_right_corner_of_dryland_is_nodata(sample_data: Path) -> None:
    image = pixels(sample_data / "dryland.tif")
    empty = (image == 0).any(axis=0)
    assert np.array_equal(empty, (image == 0).all(axis=0))
    assert empty[0, -1]
    rows, columns = np.nonzero(empty)
    assert rows.max() < 0.25 * image.shape[1]
    assert columns.min() > 0.7 * image.shape[2]
    assert 0.01 < empty.mean() < 0.05


def test_shrubs_are_dark_and_green_and_the_rest_is_neither(
    sample_data: Path, crowns: NDArray[np.int32]
) -> None:
    image = pixels(sample_data / "dryland.tif").astype(np.float64)
    valid = image[0] > 0
    red, green, blue, nir = image
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    ndvi = np.where(valid, (nir - red) / np.maximum(nir + red, 1), 0)
    ids = range(1, crowns.max() + 1)
    assert len(ids) == 80
    for number in ids:
        assert np.median(grey[crowns == number]) < 105
        assert np.median(ndvi[crowns == number]) > 0.25
    ground = valid & (crowns == 0)
    assert np.median(grey[ground]) > 150
    assert (grey[ground] < 100).mean() < 0.03  # bushes, crusts, shadows
    assert (ndvi[ground] > 0.25).mean() < 0.01


def test_points_and_crowns_are_the_same_shrubs(sample_data: Path, crowns: NDArray[np.int32]) -> None:
    found = features(sample_data / "dryland_shrubs.geojson")
    rows = table(sample_data / "dryland_shrubs.csv")
    with rasterio.open(sample_data / "dryland.tif") as raster:
        for row, feature in zip(rows, found, strict=True):
            geometry = rasterio.warp.transform_geom("EPSG:4326", raster.crs, feature["geometry"])
            left, bottom, right, top = rasterio.features.bounds(geometry)
            x = ((left + right) / 2 - raster.bounds.left) / raster.res[0]
            y = (raster.bounds.top - (top + bottom) / 2) / raster.res[1]
            assert (float(row["x"]), float(row["y"])) == pytest.approx((x, y), abs=0.01)
            diameter_m = feature["properties"]["diameter_m"]
            assert float(row["diameter_m"]) == diameter_m
            assert 2 <= diameter_m <= 8
            pixels_m2 = float((crowns == feature["id"]).sum()) * raster.res[0] * raster.res[1]
            assert pixels_m2 == pytest.approx(np.pi * diameter_m**2 / 4, rel=0.15)


def test_crowns_are_valid_and_run_counterclockwise(sample_data: Path) -> None:
    for feature in features(sample_data / "dryland_shrubs.geojson"):
        crown = shapely.geometry.shape(feature["geometry"])
        assert crown.is_valid
        assert crown.exterior.is_ccw


def test_truth_lies_on_valid_ground(sample_data: Path) -> None:
    image = pixels(sample_data / "dryland.tif")
    for row in table(sample_data / "dryland_shrubs.csv"):
        assert row["source"] == "dryland.tif"
        assert image[0, int(float(row["y"])), int(float(row["x"]))] > 0


def test_some_shrubs_touch_and_most_do_not(sample_data: Path) -> None:
    touching = [f["properties"]["touching"] for f in features(sample_data / "dryland_shrubs.geojson")]
    assert 0.2 < np.mean(touching) < 0.5


def test_cells_are_bright_where_the_truth_says(sample_data: Path) -> None:
    (image,) = pixels(sample_data / "cells.png").astype(np.float64)
    rows = table(sample_data / "cells.csv")
    assert len(rows) == 150
    for row in rows:
        x, y = float(row["x"]), float(row["y"])
        assert 0 <= x < 512
        assert 0 <= y < 512
        assert 14 < float(row["diameter_px"]) < 28
        around = image[max(int(y) - 2, 0) : int(y) + 3, max(int(x) - 2, 0) : int(x) + 3]
        assert around.mean() > 2 * np.median(image)


def test_the_files_are_small(sample_data: Path) -> None:
    assert sum(path.stat().st_size for path in sample_data.iterdir() if path.is_file()) < 3_000_000


def test_another_seed_is_another_scene(make: ModuleType) -> None:
    size = {"width": 200, "height": 150}
    first, shrubs = make.render_dryland(1, **size, shrubs=4, bushes=20)
    second, others = make.render_dryland(2, **size, shrubs=4, bushes=20)
    assert first.shape == (4, 150, 200)
    assert not np.array_equal(first, second)
    assert [s.x for s in shrubs] != [s.x for s in others]
    first, cells = make.render_cells(1, **size, cells=10)
    second, others = make.render_cells(2, **size, cells=10)
    assert first.shape == (150, 200)
    assert not np.array_equal(first, second)
    assert len(cells) == len(others) == 10


def test_the_ground_does_not_depend_on_the_pixels(make: ModuleType) -> None:
    coarse, shrubs = make.render_dryland(5, width=150, height=120, gsd_m=0.4, shrubs=8, bushes=40)
    fine, same = make.render_dryland(5, width=300, height=240, gsd_m=0.2, shrubs=8, bushes=40)
    assert [(2 * s.x, 2 * s.y, s.diameter_m) for s in shrubs] == [
        pytest.approx((s.x, s.y, s.diameter_m)) for s in same
    ]
    mean = fine.reshape(4, 120, 2, 150, 2).astype(np.float64).mean(axis=(2, 4))
    assert np.corrcoef(coarse[0].ravel(), mean[0].ravel())[0, 1] > 0.95


def test_season_light_and_sun_change_the_picture_but_not_the_truth(make: ModuleType) -> None:
    scene = {"width": 200, "height": 150, "shrubs": 4, "bushes": 20}
    plain, shrubs = make.render_dryland(1, **scene)
    for change in ({"season": "green"}, {"sun_azimuth_deg": 230.0}, {"exposure": 0.8}):
        changed, same = make.render_dryland(1, **scene, **change)
        assert not np.array_equal(plain, changed)
        assert same == shrubs


def test_too_many_objects_are_refused(make: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "TRIES", 10)
    with pytest.raises(ValueError, match="no room for 2 shrubs"):
        make.render_dryland(1, width=20, height=20, shrubs=2)
    with pytest.raises(ValueError, match="no room for 20 cells"):
        make.render_cells(1, width=24, height=24, cells=20)
