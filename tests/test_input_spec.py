"""A model sees a raster in one way, whether it is trained, scans or classifies."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import learned
import numpy as np
import pytest
from training_sets import noise, write_boxes, write_raster

from ecodetect.annotations.contract import Contract
from ecodetect.annotations.dataset import Dataset, Spot
from ecodetect.annotations.options import AnnotationOptions
from ecodetect.annotations.sources import gather
from ecodetect.bundle import file as bundle
from ecodetect.bundle.file import Bundle
from ecodetect.bundle.input_spec import input_spec, working_grid
from ecodetect.bundle.scaling import scaled
from ecodetect.classification.answering import Member, Sight
from ecodetect.grid import Grid, Window
from ecodetect.raster.reading import open_raster
from ecodetect.scanning.question import question
from ecodetect.scanning.settings import Settings

SAMPLE = Path(__file__).parents[1] / "sample_data" / "dryland.tif"
RGB = ("red", "green", "blue")


@pytest.mark.parametrize(("gsd_m", "asked_m"), [(None, 0.2), (0.59873, 0.6), (0.6, 0.6), (0.605, 0.6)])
def test_training_scanning_and_classifying_see_the_same(
    gsd_m: float | None, asked_m: float, tmp_path: Path
) -> None:
    raster = SAMPLE if gsd_m is None else write_raster(tmp_path / "a.tif", noise(3, 96, 90), gsd_m=gsd_m)
    facts: dict[str, Any] = {"bands": RGB, "unit": "m", "gsd": asked_m}
    finder = learned.bundle(learned.card("obia", **facts))
    bundle.write(tmp_path / "finder.safetensors", finder)
    boxes = write_boxes(tmp_path / "a.csv", [(10, 10, 30, 26)])
    source = gather([raster, boxes], AnnotationOptions(bands=",".join(RGB))).sources[0]
    data = Dataset([source], Contract.of(finder.card))
    window = Window(8, 8, 64, 48)
    taught = data.chip(Spot(0, window)).image
    with open_raster(raster, bands=",".join(RGB)) as opened:
        scan = question(opened, Settings(model=str(tmp_path / "finder.safetensors")))
        card = learned.card("sliding_window", scaling=finder.card.scaling, **facts)
        sight = Sight.of(Member(Bundle(card, {}), cast("Any", None), 64), opened)
        chip = opened.read(window, scan.detector.needs.bands, scan.grid)
        assert scan.grid == sight.spec.grid == data.grids[0] == opened.grid
        np.testing.assert_array_equal(sight.image(opened, window)[0], taught)
        found: Any = scan.detector
        np.testing.assert_array_equal(scaled(chip.pixels, chip.valid, found.scaling, card.fill), taught)


def test_a_raster_of_nearly_the_gsd_is_read_as_it_is_and_others_are_resampled() -> None:
    native = Grid(100, 80, (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)).with_gsd(1.0)
    assert working_grid(native, 1.019) == working_grid(native, None, 0.985) == native
    assert working_grid(native, 1.03).width == 98
    assert working_grid(native, None, 2.0).width == 50


def test_a_grey_raster_stands_for_colours_and_is_read_once() -> None:
    shown = Contract(
        bands=RGB, unit="px", gsd=None, scaling=learned.card().scaling, fill=0.0, classes=("object",)
    )

    class Grey:
        name, bands, grid = "grey.tif", ("grey",), Grid(4, 4)

    spec = input_spec(shown, Grey())
    assert spec.bands == ("grey",) * 3
    assert spec.distinct == ("grey",)
