"""Rasters of one layer that show the same ground: each individual, and each hectare, counts once."""

from __future__ import annotations

from pathlib import Path

import journal_damage
import numpy as np
import pytest
import rasterio
import shapely
from pyproj import CRS
from rasterio.transform import Affine, from_origin
from rasterio.warp import Resampling, calculate_default_transform, reproject
from rasterio.windows import Window

from ecodetect.errors import UserError
from ecodetect.formats.files import read
from ecodetect.grid import transformed
from ecodetect.scanning.files import scan_files
from ecodetect.scanning.results import Summary
from ecodetect.scanning.settings import Output, Settings
from ecodetect.sizes import Length

GSD_M = 0.5
ASKED = Settings(model="threshold", options={"level": "120", "min_area": "4px"}, tile_px=128)
PIECES = {
    "two": [(0, 0, 260, 400), (140, 0, 260, 400)],
    "three": [(0, 0, 400, 180), (0, 110, 400, 180), (0, 220, 400, 180)],
    "five": [
        (0, 0, 240, 240),
        (160, 0, 240, 240),
        (0, 160, 240, 240),
        (160, 160, 240, 240),
        (80, 80, 240, 240),
    ],
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 160 dark spots on 200 m x 200 m of bright ground."""
    random = np.random.default_rng(3)
    pixels = random.integers(170, 190, (1, 400, 400)).astype(np.uint8)
    for x, y in random.integers(4, 390, (220, 2)).tolist():
        pixels[0, y : y + 5, x : x + 5] = 40
    path: Path = tmp_path_factory.mktemp("whole") / "whole.tif"
    return written(path, pixels, from_origin(500_000, 4_100_000, GSD_M, GSD_M))


def written(path: Path, pixels: np.ndarray, place: Affine, *, crs: str = "EPSG:32630") -> Path:
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=count, dtype="uint8", crs=crs,
        transform=place, nodata=0,
    ) as file:  # fmt: skip
        file.write(pixels)
    return path


def pieces(whole: Path, folder: Path, parts: str, *, shift_m: float = 0.0) -> list[Path]:
    """Pieces of the scene, each moved by up to `shift_m`."""
    random = np.random.default_rng(1)
    found = []
    with rasterio.open(whole) as file:
        for number, window in enumerate(PIECES[parts]):
            x, y = random.uniform(-1, 1, 2) * shift_m / 2**0.5
            place = Affine.translation(x, y) * file.window_transform(Window(*window))
            found.append(written(folder / f"{number}.tif", file.read(window=Window(*window)), place))
    return found


def scan(rasters: list[Path], out: Path, output: Output | None = None) -> Summary:
    (summary,), failures = scan_files(rasters, ASKED, str(out), output)
    assert not failures
    return summary


def centres(path: Path) -> list[tuple[float, float]]:
    return sorted((round(p.centroid.x, 3), round(p.centroid.y, 3)) for p in read(path).in_world())


@pytest.mark.parametrize("parts", PIECES)
def test_pieces_of_a_scene_give_its_individuals_and_its_ground(
    parts: str, whole: Path, tmp_path: Path
) -> None:
    one = scan([whole], tmp_path / "whole.gpkg")
    again = scan(pieces(whole, tmp_path, parts), tmp_path / "pieces.gpkg")
    assert again.counts == one.counts
    assert centres(tmp_path / "pieces.gpkg") == centres(tmp_path / "whole.gpkg")
    assert again.area_ha == pytest.approx(one.area_ha, rel=1e-6)
    assert again.elsewhere
    assert one.elsewhere == 0


@pytest.mark.parametrize("parts", PIECES)
def test_pieces_that_fit_badly_give_the_same_number(parts: str, whole: Path, tmp_path: Path) -> None:
    one = scan([whole], tmp_path / "whole.gpkg")
    again = scan(pieces(whole, tmp_path, parts, shift_m=1.5), tmp_path / "pieces.gpkg")
    assert again.total == pytest.approx(one.total, rel=0.01)
    assert again.area_ha == pytest.approx(one.area_ha, rel=0.02)  # they reach over its edges


def test_the_order_of_the_rasters_does_not_matter(whole: Path, tmp_path: Path) -> None:
    rasters = pieces(whole, tmp_path, "five", shift_m=1.5)
    one = scan(rasters, tmp_path / "one.gpkg")
    two = scan(rasters[::-1], tmp_path / "two.gpkg")
    assert centres(tmp_path / "one.gpkg") == centres(tmp_path / "two.gpkg")
    assert sorted((each.source, each.area_ha) for each in one.rasters) == sorted(
        (each.source, each.area_ha) for each in two.rasters
    )


def test_ground_belongs_to_a_raster_with_data_there(whole: Path, tmp_path: Path) -> None:
    """The nearest raster has none in the middle: its neighbour has the individuals there."""
    one = scan([whole], tmp_path / "whole.gpkg")
    with rasterio.open(whole) as file:
        pixels, place = file.read(), file.transform
    pixels[0, 100:300, 150:250] = 0
    holed = written(tmp_path / "holed.tif", pixels, place)
    (half, _) = pieces(whole, tmp_path, "two")
    alone = scan([holed], tmp_path / "alone.gpkg")
    both = scan([holed, half], tmp_path / "both.gpkg")
    assert alone.total < one.total
    assert both.total == pytest.approx(one.total, abs=4)  # those that the hole cuts
    assert both.area_ha == pytest.approx(one.area_ha, rel=1e-6)


def test_rasters_of_different_crs(whole: Path, tmp_path: Path) -> None:
    one = scan([whole], tmp_path / "whole.geojson")
    left, right = pieces(whole, tmp_path, "two")
    with rasterio.open(right) as file:
        place, width, height = calculate_default_transform(
            file.crs, "EPSG:32629", file.width, file.height, *file.bounds
        )
        pixels = np.zeros((1, height, width), np.uint8)
        reproject(
            file.read(), pixels, src_transform=file.transform, src_crs=file.crs, dst_transform=place,
            dst_crs="EPSG:32629", resampling=Resampling.nearest,
        )  # fmt: skip
    turned = written(tmp_path / "turned.tif", pixels, place, crs="EPSG:32629")
    both = scan([left, turned], tmp_path / "both.geojson")
    here, there = (_seen([each], tmp_path / f"{each.stem}.geojson") for each in (left, turned))
    seam = 500_100  # half-way between their centres
    assert both.total == pytest.approx(sum(x < seam for x in here) + sum(x > seam for x in there), abs=1)
    assert both.area_ha == pytest.approx(one.area_ha, rel=0.005)


def _seen(rasters: list[Path], out: Path) -> list[float]:
    """Eastings of what is found in rasters by themselves."""
    scan(rasters, out)
    found = read(out)
    assert found.crs is not None
    xy = shapely.get_coordinates(shapely.centroid(found.geometry))
    eastings: list[float] = transformed(xy, found.crs, CRS.from_epsg(32630))[:, 0].tolist()
    return eastings


def test_rasters_of_one_place_are_one(whole: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.tif"
    copy.write_bytes(whole.read_bytes())
    both = scan([copy, whole], tmp_path / "both.gpkg")
    assert both.total == both.elsewhere
    assert sorted(each.megapixels for each in both.rasters) == [0, pytest.approx(0.16)]


def test_rasters_in_files_of_their_own_keep_their_individuals(whole: Path, tmp_path: Path) -> None:
    rasters = pieces(whole, tmp_path, "two")
    summaries, _ = scan_files(rasters, ASKED, f"{tmp_path}/out/")
    both = scan(rasters, tmp_path / "both.gpkg")
    assert sum(each.total for each in summaries) == both.total + (both.elsewhere or 0)


def test_what_is_done_is_known_again_with_the_same_alignment(whole: Path, tmp_path: Path) -> None:
    rasters = pieces(whole, tmp_path, "two", shift_m=1.5)
    out = tmp_path / "both.gpkg"
    one = scan(rasters, out)
    again = scan(rasters, out)
    assert again.already_done
    assert (again.counts, again.area_ha) == (one.counts, one.area_ha)
    assert [note.code for note in again.notes] == [note.code for note in one.notes] == ["rasters-overlap"]
    with pytest.raises(UserError, match="answers another question"):
        scan(rasters, out, Output(alignment=Length.parse("1m")))


def test_an_interrupted_scan_of_them_ends_with_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    rasters = pieces(whole, tmp_path, "two", shift_m=1.5)
    stopped = journal_damage.interrupted(rasters, tmp_path / "scan", after=2)
    assert stopped.again(tmp_path / "work", lambda journal: None) == "same"


def test_an_alignment_is_in_metres() -> None:
    with pytest.raises(UserError, match="in metres, such as 2m; got 4px"):
        Output(alignment=Length.parse("4px"))


def test_individuals_are_told_by_the_raster_that_has_their_ground(whole: Path, tmp_path: Path) -> None:
    left, right = pieces(whole, tmp_path, "two")
    scan([left, right], tmp_path / "both.gpkg")
    found = read(tmp_path / "both.gpkg")
    east = shapely.get_x(shapely.centroid(found.in_world())) - (500_000 + 100)
    assert {*found.columns["source"][east < -2]} == {"0.tif"}
    assert {*found.columns["source"][east > 2]} == {"1.tif"}
