"""`ecodetect check` counts what training would see, and says in one sentence what it would refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Run
from training_sets import noise, write_boxes, write_points, write_raster

from ecodetect.annotations.options import AnnotationOptions
from ecodetect.bundle.card import Card, Scaling
from ecodetect.bundle.file import Bundle, write
from ecodetect.inspection.training_data import check

BOXES = [(10 + 40 * x, 10 + 40 * y, 26 + 40 * x, 26 + 40 * y) for x in range(6) for y in range(6)]


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, Path]:
    """A raster of 0.5 m with 36 boxes and one beyond its edge."""
    image = write_raster(tmp_path / "scene.tif", noise(3, 256, 256))
    return image, write_boxes(tmp_path / "shrubs.csv", [*BOXES, (300, 10, 310, 20)])


def model(path: Path, **changes: object) -> Path:
    facts: dict[str, object] = {
        "name": "m",
        "detector": "heatmap",
        "bands": ("red", "green", "blue"),
        "scaling": Scaling(offset=(0.0,) * 3, span=(1.0,) * 3),
        "unit": "m",
        "gsd": 0.5,
        "gsd_range": (0.3, 0.6),
        "largest": 20.0,
        "classes": ("shrub",),
    }
    write(path, Bundle(Card(**{**facts, **changes}), {"w": np.zeros(1, np.float32)}))  # type: ignore[arg-type]
    return path


def test_what_is_counted(scene: tuple[Path, Path]) -> None:
    facts = check(scene)
    marked = facts["annotations"]
    assert (marked["kept"], marked["shapes"], marked["points"]) == (36, 36, 0)
    assert marked["left_out"] == {"outside the raster": 1}
    assert marked["classes"] == {"shrub": 36}
    assert facts["sizes"]["px"] == [16.0, 16.0, 16.0]
    assert facts["sizes"]["m"] == pytest.approx([8.0, 8.0, 8.0], rel=2e-3)
    assert facts["complete"]["by"] == {"hull": 1}
    assert 0.6 < facts["complete"]["share"] < 0.8
    assert facts["seen_at"]["chips"] >= 1
    both = [facts["split"][side]["annotations"] for side in ("training", "validation")]
    assert sum(both) + facts["split"]["between"] == 36
    assert facts["problems"] == []
    json.dumps(facts, default=str)


def test_the_sample_scene(ecodetect: Run, sample_data: Path, tmp_path: Path) -> None:
    picture = tmp_path / "check.png"
    done = ecodetect(
        "check", sample_data / "dryland.tif", sample_data / "dryland_shrubs.geojson", "--picture", picture
    )
    assert done.code == 0, done.err
    assert "80 to learn (80 shapes)" in done.out
    assert "hull of the annotations" in done.out
    assert "(rough guesses)" in done.out
    assert picture.stat().st_size > 10_000
    again = ecodetect("check", sample_data / "dryland.tif", sample_data / "dryland_shrubs.geojson", "--json")
    assert json.loads(again.out)["annotations"]["kept"] == 80
    cells = ecodetect("check", sample_data / "cells.png", sample_data / "cells.csv", "--complete", "image")
    assert "150 to learn (150 points)" in cells.out
    assert "all over the image: 100 % of the pixels" in cells.out


def test_ignored_ones_are_counted_and_drawn(scene: tuple[Path, Path], tmp_path: Path) -> None:
    doubtful = write_boxes(tmp_path / "doubtful.csv", [(30, 30, 38, 38)])
    facts = check(scene, AnnotationOptions(ignore=(str(doubtful),)), picture=tmp_path / "a.png")
    marked = facts["annotations"]
    assert (marked["ignored_shapes"], marked["ignored"], marked["kept"]) == (1, 0, 36)
    assert facts["picture"]["raster"] == "scene.tif"


def test_annotations_in_a_shape_to_ignore_are_not_learned_and_that_is_said(
    scene: tuple[Path, Path], tmp_path: Path
) -> None:
    ground = write_boxes(tmp_path / "shade.csv", [(0, 0, 80, 45)])
    facts = check(scene, AnnotationOptions(ignore=(str(ground),)))
    assert (facts["annotations"]["kept"], facts["annotations"]["ignored"]) == (34, 2)
    (note,) = (note for note in facts["notes"] if note.code == "inside-ignored")
    assert note.text.startswith("2 of 36 annotations lie in shapes to ignore")


def test_a_model_that_fits_and_one_that_does_not(
    scene: tuple[Path, Path], tmp_path: Path, ecodetect: Run
) -> None:
    fits = check(scene, model=model(tmp_path / "a.safetensors"))
    assert fits["model"]["fits"]
    other = model(
        tmp_path / "b.safetensors",
        bands=("red", "green", "nir"),
        gsd=0.1,
        gsd_range=(0.05, 0.2),
        classes=("tree",),
        largest=4.0,
    )
    done = ecodetect("check", *scene, "-m", other)
    assert done.code == 0
    for text in (
        "needs bands red, green, nir; scene.tif has red, green, blue.",
        "meant for 0.05 to 0.2 m per pixel; the rasters have 0.5 m.",
        "It knows tree; the annotations have shrub.",
        "Its largest object is 4 m; one in twenty here is wider than 8",
        "training would adapt it",
    ):
        assert text in done.out


def test_points_without_a_size(tmp_path: Path, ecodetect: Run) -> None:
    image = write_raster(tmp_path / "a.tif", noise(3, 128, 128))
    points = write_points(tmp_path / "a.csv", [(9.5 + 20 * n, 30.5 + 9 * (n % 5)) for n in range(6)])
    assert "unknown: points without a radius" in ecodetect("check", image, points).out
    sized = ecodetect("check", image, points, "--radius", "2m").out
    assert "4 m wide in the median" in sized


def test_null_and_broken_geometries_are_counted(tmp_path: Path, ecodetect: Run) -> None:
    image = write_raster(tmp_path / "a.tif", noise(3, 128, 128))
    table = tmp_path / "a.csv"
    rows = ["10,10,20,20", "40,40,60,60", "70,70,70,70", ",,,", "90,90,110,x"]
    table.write_text("xmin,ymin,xmax,ymax\n" + "\n".join(rows) + "\n", encoding="utf-8")
    done = ecodetect("check", image, table)
    assert "2 to learn" in done.out
    assert "2 rows left out" in done.out
    assert "without area" in done.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--class-column", "species"], "shrubs.csv has no column 'species'; its columns are: label."),
        (
            ["--ignore", "bush"],
            "'bush' can't be ignored: it is neither a file nor a class of the annotations (shrub)",
        ),
        (["--ignore", "gone.gpkg"], "gone.gpkg doesn't exist (--ignore)."),
        (["--complete", "gone.gpkg"], "gone.gpkg doesn't exist (--complete)."),
        (
            ["--split", "plot"],
            "The annotations of scene.tif have no column 'plot' to split by, only label (--split).",
        ),
        (["--split", "files"], "can't be split by file"),
        (["--radius", "3"], "--radius must be a length with a unit"),
        (["--picture", "a.gif"], "a.gif"),
        (["-m", "threshold"], "'threshold' has nothing to learn"),
        (["--gsd", "0"], "--gsd must be above 0"),
        (["-m", "heatmap", "--set", "nothing=1"], "nothing"),
        (["--weights", "imagenet"], "Weights are those of a backbone; name it too (--backbone)."),
        (
            ["-m", "shrubs", "--backbone", "resnet18"],
            "leave out the backbone and its weights (--backbone, --weights).",
        ),
        (["-m", "gone.safetensors"], "There is no model gone.safetensors."),
    ],
)
def test_what_is_wrong_is_one_sentence(
    scene: tuple[Path, Path], ecodetect: Run, arguments: list[str], sentence: str
) -> None:
    done = ecodetect("check", *scene, *arguments)
    assert done.code == 2
    assert sentence in done.err
    assert done.err.count("\n") == 1


def test_one_annotation_is_too_few(tmp_path: Path, ecodetect: Run) -> None:
    image = write_raster(tmp_path / "a.tif", noise(3, 64, 64))
    done = ecodetect("check", image, write_boxes(tmp_path / "a.csv", [(10, 10, 20, 20)]))
    assert done.code == 2
    assert done.err.startswith("error: There is one annotation to learn from;")
    assert "1 to learn" in done.out


def test_annotations_off_the_raster(tmp_path: Path, ecodetect: Run, sample_data: Path) -> None:
    image = write_raster(tmp_path / "a.tif", noise(3, 64, 64), shift_m=(5000.0, 0.0))
    done = ecodetect("check", image, sample_data / "dryland_shrubs.geojson")
    assert done.code == 2
    assert "lies outside the raster" in done.err
    assert done.err.count("lon, lat") == 1


def test_files_that_do_not_belong_together(tmp_path: Path, ecodetect: Run) -> None:
    for name, bands in (("a", 3), ("b", 5)):
        write_raster(tmp_path / "images" / f"{name}.tif", noise(bands, 64, 64), gsd_m=None)
        write_points(tmp_path / "points" / f"{name}.csv", [(9.5, 9.5), (50.5, 50.5)])
    done = ecodetect("check", tmp_path)
    assert done.code == 2
    assert "no band in common" in done.err


@pytest.mark.parametrize(
    ("arguments", "size_m"),
    [
        ({}, 0.5004),
        ({"model": "heatmap"}, 0.5004),
        ({"model": "faster_rcnn"}, 0.5004),
        ({"model": "sliding_window", "settings": {"window": "20m"}}, 0.5004),
        ({"model": "shrubs"}, 0.2),
        ({"backbone": "resnet18", "weights": "none"}, 0.5004),
    ],
    ids=str,
)
def test_rasters_are_seen_as_training_sees_them(
    tmp_path: Path, arguments: dict[str, Any], size_m: float
) -> None:
    """The same detector, pixel size, bands and classes, whatever is asked for."""
    pytest.importorskip("torch")
    from ecodetect.training.case import begin
    from ecodetect.training.settings import TrainingSettings

    image = write_raster(tmp_path / "scene.tif", noise(3, 256, 256), gsd_m=size_m)
    truth = write_boxes(tmp_path / "shrubs.csv", BOXES)
    asked = AnnotationOptions(bands="3,2,1")
    facts = check([image, truth], asked, **arguments)
    assert facts["problems"] == []
    said: list[Any] = []
    case = begin([image, truth], "m", asked, TrainingSettings(**arguments), said.append)
    seen = facts["seen_at"]
    assert seen["gsd"] == case.made.gsd
    assert tuple(seen["bands"]) == case.made.bands
    reads = [float(np.sqrt(np.prod(grid.gsd))) for grid in case.whole.grids if grid.gsd is not None]
    assert seen["read_at_m"] == [min(reads), max(reads)]
    assert facts["split"]["training"]["annotations"] == case.sides.objects[0]
    assert said == [note for note in facts["notes"] if note.code != "model-misfit"]
    case.close()
