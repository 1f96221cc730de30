"""A scan that is asked again: done if the very same was asked of the very same, and never otherwise."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
from command_line import Run
from rasterio.transform import from_origin

from ecodetect.errors import UserError
from ecodetect.evaluation.evaluating import evaluate
from ecodetect.formats import files as formats
from ecodetect.raster.reading import open_raster
from ecodetect.scanning import question as asking
from ecodetect.scanning import results
from ecodetect.scanning import run as running
from ecodetect.scanning.files import scan_files
from ecodetect.scanning.planning import plan_files
from ecodetect.scanning.question import question
from ecodetect.scanning.settings import Output, Settings
from ecodetect.sizes import Length


def scene(path: Path, *, seed: int = 0, at: float = 0.0, size: int = 120, **profile: Any) -> Path:
    """Dark squares on a light ground; other ones in each band. 0.5 m per pixel."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(170, 200, (3, size, size)).astype(np.uint8)
    for band in range(3):
        for _ in range(3 + band):
            x, y = rng.integers(5, size - 25, 2)
            pixels[band, y : y + 12, x : x + 12] = 30
    place = {"crs": "EPSG:32630", "transform": from_origin(500_000 + at, 4_000_000, 0.5, 0.5)}
    facts = {
        "driver": "GTiff",
        "width": size,
        "height": size,
        "count": 3,
        "dtype": "uint8",
        **place,
        **profile,
    }
    if facts["driver"] != "GTiff":
        facts |= {"crs": None, "transform": None}
    with rasterio.open(path, "w", **facts) as file:
        file.write(pixels)
    return path


ASKED = Settings(model="threshold", options={"band": "red", "largest": "40px"})
FORMATS = ("geojson", "geojsonl", "gpkg", "parquet", "fgb", "shp", "csv", "json", "xml", "txt", "tif", "png")


def key_of(path: Path, asked: Settings) -> str:
    with open_raster(path, bands=asked.bands, gsd_m=asked.gsd_m, nodata=asked.nodata) as raster:
        return question(raster, asked).key


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_there_is_counted_and_not_searched_again(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, out = scene(tmp_path / "a.tif"), tmp_path / f"out.{suffix}"
    (first,), _ = scan_files([image], ASKED, str(out))
    before = out.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(running, "prepare", lambda *_, **__: pytest.fail("searched again"))
        (again,), failures = scan_files([image], ASKED, str(out))
        with pytest.raises(UserError, match="answers another question"):
            scan_files([image], dataclasses.replace(ASKED, score=0.9), str(out))
    assert not failures
    assert again.already_done
    assert first.total == 3
    assert (again.counts, again.area_ha, again.megapixels, again.rasters, again.sources, again.model) == (
        first.counts, first.area_ha, first.megapixels, first.rasters, first.sources, first.model
    )  # fmt: skip
    assert out.read_bytes() == before


CHANGES_THE_ANSWER = {
    "model": {"model": "blobs", "options": {}},
    "options": {"options": {"band": "green", "largest": "40px"}},
    "bands": {"bands": "red=3,green=2,blue=1"},
    "aoi": {"aoi": "AOI"},
    "aoi_layer": {"aoi": "AOI", "aoi_layer": "east"},
    "score": {"score": 0.5},
    "nodata": {"nodata": 30.0},
}
CHANGES_NOTHING = {
    "bands": {"bands": "red=1,green=2,blue=3"},
    "others": {"others": ()},
    "gsd_m": {"gsd_m": 0.5},  # the raster's own
    "score": {"score": 0.0},
    "device": {"device": "cpu"},
    "tile_px": {"tile_px": 64},
    "batch": {"batch": 2},
    "workers": {"workers": 1},
    "max_memory": {"max_memory": 10**9},
    "allow_vrt": {"allow_vrt": True},
}
OF_NETWORKS = {"flips", "diameter", "others", "values"}  # `threshold` has none
OF_THE_SCAN = {"companions"}  # what else is scanned: by it a unit may be chosen, which is in the key


def test_every_setting_is_in_the_key_or_changes_no_byte_of_the_features(tmp_path: Path) -> None:
    image = scene(tmp_path / "a.tif")
    frame = geopandas.GeoDataFrame(
        {"part": ["west", "east"]},
        geometry=geopandas.points_from_xy([5e5 + 10, 5e5 + 50], [4e6 - 30] * 2).buffer(9.0),
        crs="EPSG:32630",
    )
    for part in ("west", "east"):
        frame[frame.part == part].to_file(tmp_path / "aoi.gpkg", layer=part)
    known = {field.name for field in dataclasses.fields(Settings)}
    # A new setting belongs into one of these lists (and, if it changes the answer, into the key).
    assert known == {*CHANGES_THE_ANSWER, *CHANGES_NOTHING, *OF_NETWORKS, *OF_THE_SCAN}

    def asked(change: Mapping[str, Any]) -> Settings:
        values = {name: str(tmp_path / "aoi.gpkg") if v == "AOI" else v for name, v in change.items()}
        if "aoi" in values:
            values.setdefault("aoi_layer", "west")
        return dataclasses.replace(ASKED, **values)

    plain = key_of(image, ASKED)
    keys = [key_of(image, asked(change)) for change in CHANGES_THE_ANSWER.values()]
    assert len({plain, *keys}) == 1 + len(keys)
    scan_files([image], ASKED, str(tmp_path / "plain.csv"))
    for name, change in CHANGES_NOTHING.items():
        assert key_of(image, asked(change)) == plain, name
        scan_files([image], asked(change), str(tmp_path / "other.csv"), Output(overwrite=True))
        assert (tmp_path / "other.csv").read_bytes() == (tmp_path / "plain.csv").read_bytes(), name


def test_what_else_makes_another_question(tmp_path: Path) -> None:
    image = scene(tmp_path / "a.tif")
    plain = key_of(image, ASKED)
    assert key_of(scene(tmp_path / "b.tif"), ASKED) != plain  # its name is in the column `source`
    assert key_of(scene(image, nodata=30), ASKED) != plain
    assert key_of(scene(image), ASKED) == plain
    with rasterio.open(image, "r+") as file:  # the same name, one other pixel
        pixels = file.read()
        pixels[0, 3, 100] = 31
        file.write(pixels)
    assert key_of(image, ASKED) != plain
    photograph = scene(tmp_path / "a.png", driver="PNG")
    by_gsd = {key_of(photograph, dataclasses.replace(ASKED, gsd_m=gsd)) for gsd in (None, 0.1, 0.2)}
    assert len(by_gsd) == 3
    one = Settings(model="nuclei", device="cpu")
    by_diameter = {
        key_of(photograph, dataclasses.replace(one, diameter=Length.parse(diameter, name="--diameter")))
        for diameter in ("20px", "40px", "40.0px")
    }
    assert len(by_diameter) == 2


def test_another_order_of_bands_is_another_answer(tmp_path: Path, ecodetect: Run) -> None:
    image, out = scene(tmp_path / "a.tif"), tmp_path / "out.gpkg"
    scan = ("scan", image, "-m", "threshold", "--set", "band=red", "-o", out)
    assert "object: 3," in ecodetect(*scan).out
    again = ecodetect(*scan, "--bands", "red=3,green=2,blue=1")
    assert again.code == 2
    assert "out.gpkg exists: it" in again.err
    assert "replace it (--overwrite)." in again.err
    assert "object: 5," in ecodetect(*scan, "--bands", "red=3,green=2,blue=1", "--overwrite").out
    assert "already done (5 object)" in ecodetect(*scan, "--bands", "red=3,green=2,blue=1").out
    (each,) = formats.read_metadata(out)["rasters"]
    assert each["bands"] == {"red": 3}


def test_json_of_a_finished_scan_counts_by_raster(tmp_path: Path, ecodetect: Run) -> None:
    """Also where two rasters have one name: ids tell them apart."""
    for folder, seed in (("one", 1), ("two", 2)):
        (tmp_path / folder).mkdir()
        scene(tmp_path / folder / "a.tif", seed=seed, at=seed * 1000.0)
    for suffix in ("gpkg", "csv"):
        out = tmp_path / f"all.{suffix}"
        scan = (
            "scan",
            tmp_path / "one/a.tif",
            tmp_path / "two/a.tif",
            "-m",
            "threshold",
            "-o",
            out,
            "--json",
        )
        (first,), (again,) = (json.loads(ecodetect(*scan).out) for _ in range(2))
        assert again["already_done"]
        assert [each["source"] for each in first["rasters"]] == ["a.tif", "a.tif"]
        assert sum(each["counts"]["object"] for each in first["rasters"]) == first["counts"]["object"]
        same = ("counts", "area_ha", "megapixels", "rasters", "sources", "model")
        assert {name: again[name] for name in same} == {name: first[name] for name in same}


def test_an_edited_answer_is_none_and_is_kept(tmp_path: Path) -> None:
    image, out = scene(tmp_path / "a.tif"), tmp_path / "out.gpkg"
    scan_files([image], ASKED, str(out))
    layer = geopandas.read_file(out)
    layer.loc[0, "label"] = "stone"
    pixels = out.read_bytes()
    layer.iloc[:1].to_file(out, layer="detections", mode="a")
    assert out.read_bytes() != pixels
    with pytest.raises(UserError, match=r"has been edited since .* kept as out.edited.gpkg"):
        scan_files([image], ASKED, str(out))
    for name in ("out.edited.gpkg", "out.edited2.gpkg"):
        edited = out.read_bytes()
        (summary,), _ = scan_files([image], ASKED, str(out), Output(overwrite=True))
        assert [note.code for note in summary.notes] == ["edits-kept"]
        assert (tmp_path / name).read_bytes() == edited
        assert len(formats.read(out)) == 3
        layer.iloc[:1].to_file(out, layer="detections", mode="a")


def test_overwrite_always_scans_again(tmp_path: Path) -> None:
    image, out = scene(tmp_path / "a.tif"), tmp_path / "out.geojson"
    scan_files([image], ASKED, str(out))
    (summary,), _ = scan_files([image], ASKED, str(out), Output(overwrite=True))
    assert not summary.already_done
    assert summary.notes == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "out.geojson", "out.qml"]


def test_the_answer_of_another_version_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, out = scene(tmp_path / "a.tif"), tmp_path / "out.geojson"
    with monkeypatch.context() as patch:
        patch.setattr(results, "__version__", "9.9")
        patch.setattr(asking, "__version__", "9.9")
        scan_files([image], ASKED, str(out))
    with pytest.raises(UserError, match=r"it is the answer of ecodetect 9.9 \(this is "):
        scan_files([image], ASKED, str(out))


def test_a_raster_that_cannot_be_opened_is_said_again_and_the_rest_is_done(tmp_path: Path) -> None:
    good, bad, out = scene(tmp_path / "a.tif"), tmp_path / "b.tif", tmp_path / "out.gpkg"
    bad.write_text("no raster")
    for is_done in (False, True):
        (summary,), failures = scan_files([good, bad], ASKED, str(out))
        assert summary.already_done == is_done
        assert summary.counts == {"object": 3}
        assert [image for image, _ in failures] == [str(bad)]


def test_pictures_are_drawn_of_what_is_there(tmp_path: Path) -> None:
    image = scene(tmp_path / "a.tif")
    for suffix in ("gpkg", "tif"):
        out, picture = tmp_path / f"out.{suffix}", tmp_path / "map.png"
        scan_files([image], ASKED, str(out))
        (summary,), _ = scan_files([image], ASKED, str(out), Output(picture=str(picture)))
        assert summary.already_done
        assert picture.exists()
        picture.unlink()


def test_rasters_of_a_layer_that_overlap_are_told(tmp_path: Path, ecodetect: Run) -> None:
    one, two = scene(tmp_path / "a.tif"), scene(tmp_path / "b.tif", at=40.0)
    scan = ("scan", one, two, "-m", "threshold")
    for more in (("--dry-run",), (), ()):  # before, after, and when it is done already
        said = ecodetect(*scan, "-o", tmp_path / "all.gpkg", *more).err
        assert re.search(r"note: a.tif: it overlaps b.tif: 0.12 ha of ground are shown again", said)
    apart = ecodetect(*scan, "-o", f"{tmp_path}/", "--dry-run")
    assert "overlaps" not in apart.err
    scene(two, at=60.0)  # they touch
    lines, notes = plan_files([one, two], ASKED, str(tmp_path / "next.gpkg"))
    assert len(lines) == 2
    assert notes == ()


@pytest.mark.parametrize(
    "command", ["scan", "candidates", "check", "classify", "explain", "train", "evaluate"]
)
def test_a_gsd_that_contradicts_the_raster_is_refused(tmp_path: Path, command: str, ecodetect: Run) -> None:
    image = scene(tmp_path / "a.tif")
    table = tmp_path / "a.csv"
    table.write_text("source,x,y,label\n" + "".join(f"a.tif,{x}.5,{x}.5,tree\n" for x in range(10, 100, 10)))
    words: dict[str, tuple[object, ...]] = {
        "scan": (image, "-m", "threshold"),
        "candidates": (image, "-o", tmp_path / "c.gpkg"),
        "check": (image, table),
        "classify": (table, image, "-m", "species", "-o", tmp_path / "s.gpkg"),
        "explain": (image, "-m", "species", "-o", tmp_path / "e.png"),
        "train": (image, table, "-o", tmp_path / "m.safetensors"),
        "evaluate": (table, table, "--image", image),
    }
    outcome = ecodetect(command, *words[command], "--gsd", "0.25")
    assert outcome.code == 2
    if command in ("classify", "explain"):
        return  # there is no such model, which may be said first
    assert "a.tif says that a pixel is 0.5002 x 0.5002 m, not 0.25 m" in outcome.err
    assert outcome.err.strip().splitlines()[-1].startswith("error: ")


def test_what_a_scan_says_of_itself_outlives_conversion(tmp_path: Path) -> None:
    from ecodetect.converting import convert

    image, first = scene(tmp_path / "a.tif"), tmp_path / "a.gpkg"
    asked = dataclasses.replace(ASKED, score=0.4)
    scan_files([image], asked, str(first))
    stated = dict(formats.read_metadata(first))
    assert stated.pop("key")
    before = first
    for name in ("b.geojson", "c.parquet", "d.fgb", "e.gpkg"):
        convert(before, tmp_path / name)
        before = tmp_path / name
        assert formats.read_metadata(before) == stated
        # It isn't byte for byte what the scan would write, so the scan doesn't take it for its own answer.
        with pytest.raises(UserError, match="doesn't say what it answers"):
            scan_files([image], asked, str(before))
        done = evaluate(before, first)
        assert "scores-cut" in [note.code for note in done.notes]
    convert(first, tmp_path / "f.json", image=image)
    assert formats.read_metadata(tmp_path / "f.json") == stated


def test_what_no_raster_can_answer_is_refused_by_its_own_sentence(tmp_path: Path) -> None:
    """`--overwrite` would lead to the very same refusal."""
    image, out = scene(tmp_path / "a.tif"), tmp_path / "out.gpkg"
    scan_files([image], ASKED, str(out))
    with pytest.raises(UserError, match="leave out the pixel size"):
        scan_files([image], dataclasses.replace(ASKED, gsd_m=3.0), str(out))
