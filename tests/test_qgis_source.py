"""`file.gpkg|layername=x`, as QGIS writes the source of a layer, is understood wherever a layer is read."""

from __future__ import annotations

from pathlib import Path

import geopandas
import pytest
import shapely
from command_line import Run
from training_sets import ORIGIN, noise, write_points, write_raster

from ecodetect.errors import LayerError
from ecodetect.formats import files as formats
from ecodetect.formats.gis.qgis_source import source_of


def on_map(x: float, y: float) -> tuple[float, float]:
    """Map coordinates of a pixel of a raster of 0.5 m."""
    return ORIGIN[0] + 0.5 * x, ORIGIN[1] - 0.5 * y


@pytest.fixture
def field(tmp_path: Path) -> Path:
    """A GeoPackage with layers of points (shrubs, then trees) and of one plot."""
    path = tmp_path / "field.gpkg"
    layers = {
        "shrubs": [shapely.Point(on_map(20 + 8 * n, 20)) for n in range(8)],
        "trees": [shapely.Point(on_map(20 + 8 * n, 40)) for n in range(5)],
        "plot": [shapely.box(*on_map(0, 64), *on_map(64, 0))],
    }
    for name, shapes in layers.items():
        geopandas.GeoDataFrame(geometry=shapes, crs="EPSG:32630").to_file(path, layer=name)
    return path


@pytest.mark.parametrize(
    ("behind", "count"),
    [
        ("|layername=trees", 5),
        ("|layername=shrubs", 8),
        ('|layername="trees"', 5),
        ("|LAYERID=1", 5),
        ("|layerid=0|uniqueGeometryType=yes", 8),
    ],
)
def test_the_layer_is_the_one_that_is_named(field: Path, behind: str, count: int) -> None:
    assert len(formats.read(f"{field}{behind}")) == count
    assert len(formats.read(f"'{field}{behind}'")) == count


@pytest.mark.parametrize(
    ("behind", "sentence"),
    [
        ("|layername=trees|subset=\"a\" = 'x'", r"not \|subset="),
        ("|layername=trees|geometrytype=Point", r"not \|geometrytype="),
        ("|layername=birds", "called 'birds'; it has shrubs"),
        ("|layerid=7", "'number 7'"),
        ("|layerid=x", "number of a layer"),
        ("", r'name one, as in ".*field\.gpkg\|layername=shrubs"'),
    ],
)
def test_what_is_not_meant_is_refused(field: Path, behind: str, sentence: str) -> None:
    with pytest.raises(LayerError, match=sentence):
        formats.read(f"{field}{behind}")


def test_two_names_are_refused_and_one_twice_is_one(field: Path) -> None:
    assert source_of(f"{field}|layername=trees", "trees") == (field, "trees")
    with pytest.raises(LayerError, match="named twice, 'shrubs' and 'trees'"):
        source_of(f"{field}|layername=trees", "shrubs")


def test_a_file_whose_name_has_a_bar_is_that_file(tmp_path: Path) -> None:
    path = write_points(tmp_path / "a|layername=b.csv", [(1.5, 1.5)])
    assert source_of(path) == (path, None)


def test_every_command_that_reads_a_layer_understands_it(field: Path, tmp_path: Path, ecodetect: Run) -> None:
    image = write_raster(tmp_path / "scene.tif", noise(3, 128, 128))
    trees, plot = f"{field}|layername=trees", f"{field}|layername=plot"
    commands = [
        (
            "check",
            image,
            trees,
            "--complete",
            plot,
            "--ignore",
            f"{field}|layername=shrubs",
            "--radius",
            "1m",
        ),
        ("evaluate", trees, trees, "--within", "1m", "--area", plot, "--image", image),
        ("convert", trees, tmp_path / "trees.geojson"),
        ("info", trees),
        ("scan", image, "-m", "threshold", "--aoi", plot, "--dry-run"),
    ]
    for command in commands:
        done = ecodetect(*command)
        assert done.code == 0, (command, done.err)
    assert "5 features" in ecodetect("convert", trees, tmp_path / "again.geojson").out
