"""`ecodetect info`: facts about rasters and layers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from command_line import Run

from ecodetect.errors import RasterError, UserError
from ecodetect.inspection.files import describe


def test_a_raster(sample_data: Path) -> None:
    facts = describe(sample_data / "dryland.tif")
    assert facts["kind"] == "raster"
    assert facts["crs"] == "WGS 84 / UTM zone 30N (EPSG:32630)"
    assert facts["gsd_m"] == pytest.approx([0.2, 0.2], rel=1e-3)
    assert facts["ground_m"] == pytest.approx([240, 200], rel=1e-3)
    assert facts["area_ha"] == pytest.approx(4.8, rel=2e-3)
    with rasterio.open(sample_data / "dryland.tif") as dataset:
        valid = dataset.dataset_mask() > 0
        pixels = dataset.read()
    assert facts["no_data_share"] == pytest.approx(1 - valid.mean())
    assert facts["sampled_share"] == 1
    assert [band["name"] for band in facts["bands"]] == ["red", "green", "blue", "nir"]
    assert [band["high"] for band in facts["bands"]] == [int(band[valid].max()) for band in pixels]
    assert facts["detectors"]["threshold"]["fits"]
    json.dumps(facts)


def test_a_picture_without_place(sample_data: Path) -> None:
    facts = describe(sample_data / "cells.png")
    assert facts["ground_m"] is None
    assert facts["frame"] == "pixel"
    assert describe(sample_data / "cells.png", gsd_m=1e-6)["gsd_m"] == [1e-6, 1e-6]


def test_the_models_that_make_sense_are_offered_and_of_the_others_is_said_why(
    sample_data: Path, ecodetect: Run
) -> None:
    """An orthophoto isn't a micrograph, though both have red, green and blue."""
    found = describe(sample_data / "dryland.tif")["detectors"]
    meant = [name for name, answer in found.items() if answer["meant"]]
    assert meant == list(found)[: len(meant)]  # first
    assert {"shrubs", "threshold"} <= set(meant)
    assert not {"nuclei", "blood-cells", "seals", "trees"} & set(meant)
    assert "makes sense only if they are 1.55 m to 8.65 m wide here" in found["nuclei"]["why"]
    assert "per pixel (the raster has 20 cm)" in found["trees"]["why"]
    cells = describe(sample_data / "cells.png")["detectors"]
    assert cells["nuclei"]["meant"]
    assert not cells["shrubs"]["fits"]
    said = ecodetect("info", sample_data / "dryland.tif").out
    assert "nuclei      not offered: The model 'nuclei' has learned nucleus 7.75 to 43.2 px wide" in said


def test_a_layer_without_features(tmp_path: Path) -> None:
    (tmp_path / "a.geojson").write_text('{"type":"FeatureCollection","features":[]}')
    facts = describe(tmp_path / "a.geojson")
    assert facts["features"] == 0
    assert facts["extent"] is None


def test_what_a_sparse_raster_holds_is_known_from_its_index(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=20_480, height=20_480, count=1, dtype="uint8", sparse_ok=True,
        tiled=True, blockxsize=512, blockysize=512,
        crs="EPSG:32631", transform=rasterio.Affine(0.1, 0, 5e5, 0, -0.1, 5e6),
    ) as dataset:  # fmt: skip
        dataset.write(
            np.full((1, 512, 1024), 9, np.uint8), window=rasterio.windows.Window(512, 1024, 1024, 512)
        )
    facts = describe(path)
    assert facts["no_data_share"] == pytest.approx(1 - 2 / 1600)
    assert facts["bands"] == [{"name": "grey", "low": 9, "high": 9}]


def test_a_layer(sample_data: Path) -> None:
    facts = describe(sample_data / "dryland_shrubs.geojson")
    assert facts["kind"] == "layer"
    assert facts["geometry_types"] == {"Polygon": facts["features"]}
    assert facts["classes"] == {"shrub": facts["features"]}
    assert facts["crs"] == "WGS 84 (EPSG:4326)"
    west, south, east, north = facts["extent_lonlat"]
    assert -3 < west < east < -2
    assert 36 < south < north < 37


def test_what_is_neither(tmp_path: Path) -> None:
    with pytest.raises(RasterError, match="no file"):
        describe(tmp_path / "a.tif")
    (tmp_path / "a.geojson").write_text("nothing", encoding="ascii")
    with pytest.raises(UserError, match=r"a\.geojson"):
        describe(tmp_path / "a.geojson")


def test_the_command_speaks_of_the_ground(ecodetect: Run, sample_data: Path) -> None:
    said = ecodetect("info", sample_data / "dryland.tif")
    assert said.code == 0
    assert said.err == ""
    assert "240.1 m x 200.1 m on the ground" in said.out
    assert "UTM zone 30N" in said.out
    assert "nodata value 0" in said.out
    said = ecodetect("info", sample_data / "cells.png", "--json")
    assert json.loads(said.out)["file"] == "cells.png"
    said = ecodetect("info", sample_data / "dryland_shrubs.geojson")
    assert "shrub" in said.out
    said = ecodetect("info", sample_data / "none.tif")
    assert said.code == 2
    assert said.err.count("\n") == 1


def test_a_model_that_comes_with_ecodetect_is_described_by_its_name() -> None:
    assert describe("nuclei")["card"]["name"] == "nuclei"
