"""Models: which one is meant, whether it fits a raster, and a scan with one from the command line."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import learned
import numpy as np
import pandas as pd
import pytest
from command_line import Run
from PIL import Image
from scipy.spatial import KDTree

from ecodetect.bundle import file as bundle
from ecodetect.bundle.card import Card, Scaling
from ecodetect.detectors.protocol import Scene
from ecodetect.errors import UserError
from ecodetect.formats import files as formats
from ecodetect.models import choosing as models
from ecodetect.raster.reading import open_raster
from ecodetect.scanning.files import scan
from ecodetect.scanning.question import question
from ecodetect.scanning.settings import Settings

BANDS = ("red", "green", "blue", "nir")


def scene(bands: tuple[str, ...] = BANDS, gsd: float | None = 0.2) -> Scene:
    return Scene(bands, None if gsd is None else (gsd, gsd), "uint8", (0, 255))


def metric(**changes: object) -> Card:
    facts = {
        "name": "shrubby", "unit": "m", "gsd": 0.4, "gsd_range": (0.1, 0.6), "largest": 8.0,
        "classes": ("shrub",), "thresholds": {"f1": (0.2,), "count": (0.15,)},
        "scaling": Scaling(offset=(0.0,) * 4, span=(255.0,) * 4), **changes,
    }  # fmt: skip
    return learned.card(**facts)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "shrubby.safetensors"
    bundle.write(path, learned.bundle(metric()))
    return path


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of that with our own models."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setattr(models, "FOLDER", folder)
    return folder


def test_no_name_is_both_a_model_and_a_detector() -> None:
    from ecodetect.detectors.table import known

    assert not set(models.known()) & set(known())


def test_what_a_name_means(model: Path) -> None:
    assert models.resolve(model) == model
    assert models.resolve("threshold") is None
    with pytest.raises(UserError, match="did you mean threshold"):
        models.resolve("treshold")
    with pytest.raises(UserError, match="There is no model"):
        models.resolve("nowhere.safetensors")


@pytest.mark.parametrize(
    ("where", "says"),
    [
        (scene(("red", "green", "blue")), "needs bands red, green, blue, nir; a.tif has red, green, blue"),
        (scene(gsd=None), "that of a.tif is unknown: state it"),
        (scene(gsd=2.0), "good for rasters of up to 63 cm; a.tif has 2 m"),
    ],
)
def test_a_raster_that_does_not_fit(where: Scene, says: str) -> None:
    why = models.misfit(metric(), where, source="a.tif")
    assert why is not None
    assert says in str(why)
    assert models.misfit(metric(), scene()) is None
    assert models.misfit(metric(), scene(gsd=0.02)) is None


def test_a_grey_picture_stands_for_colours() -> None:
    card = learned.card(bands=("red", "green", "blue"))
    assert models.misfit(card, scene(("grey",), None)) is None


RGB = BANDS[:3]


def put(shelf: Path, name: str, **changes: object) -> None:
    bands = changes.get("bands", BANDS)
    scaling = Scaling(offset=(0.0,) * len(bands), span=(255.0,) * len(bands))  # type: ignore[arg-type]
    card = metric(**{"name": name, "scaling": scaling, **changes})
    bundle.write(shelf / f"{name}.safetensors", learned.bundle(card))


@pytest.fixture
def ours(shelf: Path) -> Path:
    """Models as they might be shipped: two with a GSD and a range, one with none."""
    put(shelf, "shrubs", bands=RGB, gsd=0.2, gsd_range=(0.05, 0.25))
    put(shelf, "trees", gsd=0.6, gsd_range=(0.3, 1.0))
    put(shelf, "nuclei", bands=RGB, unit="px", gsd=None, gsd_range=None)
    return shelf


def test_without_models_none_is_chosen(shelf: Path) -> None:
    assert models.fitting(scene()) == (None, "No trained model comes with this version.")


@pytest.mark.parametrize(
    ("where", "chosen"),
    [(scene(gsd=0.1), "shrubs"), (scene(RGB, gsd=0.2), "shrubs"), (scene(gsd=0.6), "trees"),
     (scene(gsd=0.25), "shrubs"), (scene(gsd=1.04), "trees")],
)  # fmt: skip
def test_the_one_that_fits_is_chosen(ours: Path, where: Scene, chosen: str) -> None:
    name, why = models.fitting(where)
    assert name == chosen
    assert f"'{chosen}' is the only model that fits" in why


def test_of_two_for_the_same_the_one_that_sees_more_is_meant(shelf: Path) -> None:
    put(shelf, "trees", gsd=0.6, gsd_range=(0.3, 1.0))
    put(shelf, "trees-rgb", bands=RGB, gsd=0.6, gsd_range=(0.3, 1.0))
    assert models.fitting(scene(gsd=0.6))[0] == "trees"
    assert models.fitting(scene(RGB, gsd=0.6))[0] == "trees-rgb"


@pytest.mark.parametrize(
    ("where", "says"),
    [
        (scene(gsd=2.0), "'trees' is meant for 30 cm to 1 m per pixel (the raster has 2 m)"),
        (scene(gsd=0.01), "'shrubs' is meant for 5 cm to 25 cm per pixel (the raster has 1 cm)"),
        (scene(RGB, gsd=0.6), "'trees' needs red, green, blue, nir (the raster has red, green, blue)"),
        (scene(gsd=None), "'trees' works at 60 cm per pixel (the raster doesn't say; state its pixel size)"),
        (scene(RGB, gsd=None), "'nuclei' works at any size of pixels, so it is never chosen unasked"),
        (scene(("grey",), gsd=0.2), "'shrubs' needs red, green, blue (the raster has grey)"),
    ],
)
def test_where_none_fits_each_says_why(ours: Path, where: Scene, says: str) -> None:
    name, why = models.fitting(where)
    assert name is None
    assert why.startswith("No model fits: ")
    assert says in why
    assert all(f"'{each}'" in why for each in ("shrubs", "trees", "nuclei"))


def test_where_several_fit_they_and_the_others_are_named(ours: Path) -> None:
    put(ours, "bushes", classes=("bush",), gsd=0.2, gsd_range=(0.1, 0.3))
    name, why = models.fitting(scene(gsd=0.2))
    assert name is None
    assert why.startswith("Several models fit: bushes, shrubs. Others don't: 'nuclei' works at any size")


def test_scan_honours_the_card(ecodetect: Run, corners: Path, model: Path, tmp_path: Path) -> None:
    raster, found = corners / "dryland.tif", {}
    for name, tile in (("one", "1024"), ("two", "64")):
        out = tmp_path / f"{name}.geojson"
        done = ecodetect("scan", raster, "-m", model, "-o", out, "--tile", tile)
        assert done.code == 0, done.err
        found[name] = json.loads(out.read_text(encoding="utf-8"))
    about = found["one"]["ecodetect"]
    assert about["model"] == "shrubby"
    assert about["model_hash"] == bundle.read(model).hash
    scores = [[f["properties"]["score"] for f in layer["features"]] for layer in found.values()]
    assert len(scores[0]) == len(scores[1]) > 5
    assert min(scores[0]) >= 0.2
    assert sorted(scores[0]) == pytest.approx(sorted(scores[1]), abs=1e-4)
    again = ecodetect("scan", raster, "-m", model, "-o", tmp_path / "one.geojson")
    assert "already done" in again.out


def test_without_a_model_the_one_that_fits_is_taken(
    ecodetect: Run, corners: Path, shelf: Path, tmp_path: Path
) -> None:
    bundle.write(shelf / "shrubs.safetensors", learned.bundle(metric(name="shrubs")))
    done = ecodetect("scan", corners / "dryland.tif", "-o", tmp_path / "a.geojson")
    assert done.code == 0, done.err
    assert "searched with 'shrubs'" in done.err
    done = ecodetect("scan", corners / "cells.png", "-o", tmp_path / "b.csv")
    assert done.code == 2
    assert "Name the model" in done.err
    assert "shrubs" in done.err
    listed = ecodetect("models")
    assert listed.code == 0
    assert "No trained model" not in listed.out
    assert ecodetect("models", "shrubs").code == 0


def test_scanning_with_what_we_ship_needs_no_torchvision(corners: Path, tmp_path: Path) -> None:
    with Image.open(corners / "cells.png") as picture:
        picture.crop((0, 0, 160, 160)).save(tmp_path / "cells.png")
    source = (
        "import sys, ecodetect; found = ecodetect.scan(sys.argv[1], model='nuclei');"
        "print(len(found), 'torchvision' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", source, str(tmp_path / "cells.png")], capture_output=True, text=True
    )
    count, is_imported = done.stdout.split()
    assert int(count) > 5
    assert is_imported == "False"


def test_a_stated_diameter_brings_objects_to_the_size_that_was_learned(
    ecodetect: Run, corners: Path, tmp_path: Path
) -> None:
    plain = cv2.imread(str(corners / "cells.png"), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(tmp_path / "twice.png"), cv2.resize(plain, None, fx=2, fy=2))
    typical = models.opened("nuclei").card.options["typical_px"]
    for name, size in ((corners / "cells.png", typical), (tmp_path / "twice.png", 2 * typical)):
        out = tmp_path / f"{name.stem}.csv"
        done = ecodetect("scan", name, "-m", "nuclei", "--diameter", f"{size}px", "-o", out)
        assert done.code == 0, done.err
    one, two = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("cells", "twice"))
    assert len(one) > 40
    assert abs(len(one) - len(two)) < 0.02 * len(one)
    off, nearest = KDTree(two[["x", "y"]] / 2).query(one[["x", "y"]])
    assert np.median(off) < 0.2
    ratio = two["diameter_px"].to_numpy()[nearest] / one["diameter_px"].to_numpy()
    assert np.median(ratio) == pytest.approx(2, abs=0.05)


def test_a_model_may_read_any_picture_coarser_than_it_is(corners: Path, model: Path, tmp_path: Path) -> None:
    card = learned.card(bands=("grey",), gsd=2.5, scaling=Scaling(offset=(0.0,), span=(255.0,)))
    bundle.write(model, learned.bundle(card))
    with open_raster(corners / "cells.png") as raster:
        asked = question(raster, Settings(model=str(model)))
        assert asked.grid.width == math.ceil(raster.grid.width / 2.5)
        assert asked.detector.needs.largest_px == card.largest / 2.5
    found = scan(corners / "cells.png", model=model)
    assert found.grid.width == raster.grid.width
    assert found.geometry[:, 0].max() > 0.8 * raster.grid.width


@pytest.mark.parametrize(
    ("name", "said", "expected"),
    [
        ("shrubs", "25px", "reads every raster at"),
        ("nuclei", "0px", "must be above 0"),
        ("nuclei", "4000px", "too far from the 21.4 px that nuclei has learned"),
        ("nuclei", "big", "must be a length with a unit"),
        ("nuclei", "8m", "state its pixel size"),
        ("blobs", "8px", "has learned no size"),
    ],
)
def test_a_diameter_that_does_not_fit_is_one_sentence(
    ecodetect: Run, corners: Path, tmp_path: Path, name: str, said: str, expected: str
) -> None:
    raster = corners / ("dryland.tif" if name == "shrubs" else "cells.png")
    done = ecodetect("scan", raster, "-m", name, "--diameter", said, "-o", tmp_path / "a.csv")
    assert done.code == 2
    assert expected in done.err
    assert not (tmp_path / "a.csv").exists()


def test_info_prints_the_card(ecodetect: Run, model: Path) -> None:
    done = ecodetect("info", model)
    assert done.code == 0, done.err
    for text in (
        "shrubby",
        "bands red, green, blue, nir",
        "0.4 m per pixel",
        "a score of shrub 0.2 (fewest",
        "up to 8 m wide",
    ):
        assert text in done.out
    assert json.loads(ecodetect("info", model, "--json").out)["card"]["gsd"] == 0.4


@pytest.mark.parametrize("kind", ["short", "pickle", "plain text", "plain weights", "other detector"])
def test_what_is_no_model_is_one_sentence(
    ecodetect: Run, corners: Path, model: Path, tmp_path: Path, kind: str
) -> None:
    if kind == "short":
        model.write_bytes(model.read_bytes()[:-100])
    elif kind == "pickle":
        model.write_bytes(pickle.dumps({"a": 1}))
    elif kind == "plain text":
        model.write_text("weights", encoding="utf-8")
    elif kind == "plain weights":
        import numpy as np
        import safetensors.numpy

        safetensors.numpy.save_file({"a": np.zeros(3, np.float32)}, model)
    else:
        made = bundle.read(model)
        card = replace(metric(), detector="crystal_ball")
        bundle.write(model, bundle.Bundle(card, made.weights))
    out = tmp_path / "never.geojson"
    done = ecodetect("scan", corners / "dryland.tif", "-m", model, "-o", out)
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert not out.exists()


def test_the_sum_of_a_density_counts_whatever_the_tiles(
    ecodetect: Run, corners: Path, model: Path, tmp_path: Path
) -> None:
    bundle.write(model, learned.bundle(metric(options={"density_px": 2.0})))
    with open_raster(corners / "dryland.tif") as raster:
        width, height = raster.grid.width, raster.grid.height
        half_of_it = [(0, 0), (0, height), (width / 2, height), (width / 2, 0), (0, 0)]
        ring = raster.grid.to_lonlat(half_of_it).tolist()
    area = tmp_path / "area.json"
    area.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}), encoding="utf-8")
    sums = []
    for name, options in {"whole": [], "tiles": ["--tile", 64], "half": ["--aoi", area]}.items():
        out = tmp_path / f"{name}.geojson"
        done = ecodetect("scan", corners / "dryland.tif", "-m", model, "-o", out, "--json", *options)
        assert done.code == 0, done.err
        expected = json.loads(done.out)[0]["expected"]
        assert formats.read_metadata(out)["rasters"][0]["expected"] == expected
        sums.append(expected["shrub"])
    whole, tiles, half = sums
    assert tiles == pytest.approx(whole, abs=0.2)
    assert 0.3 < half / whole < 0.7
