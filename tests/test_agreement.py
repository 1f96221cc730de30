"""Annotations of all images agree: one column of classes, one spelling, each individual once."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely

from ecodetect.annotations.agreement import agreed, repeated_said, without_repeated
from ecodetect.annotations.laying import Annotations, on_raster
from ecodetect.grid import Grid
from ecodetect.layer import Layer

GRID = Grid(200, 100)


def marked(xs: list[float], **columns: Any) -> Annotations:
    shapes = shapely.box(np.array(xs), 10.0, np.array(xs) + 10, 20.0)
    values = {
        name: np.array(each, dtype=object if any(isinstance(v, str) for v in each) else None)
        for name, each in columns.items()
    }
    return on_raster(Layer(shapes, values, grid=GRID), GRID, name="a.gpkg")


def test_columns_that_are_not_the_class_are_named() -> None:
    some = marked([0, 20, 40], gut=["a", "b", "a"])
    (found,), (note,) = agreed([some], ["a.gpkg"])
    assert found.label.tolist() == ["", "", ""]
    assert (note.code, note.about) == ("class-column", "a.gpkg")
    assert "gut (2 values); if one has the class, name it." in note.text
    assert note.parameter == "class_column"
    _, (note,) = agreed([marked([0, 20, 40], species=["a", "b", "a"], plot=["1a", "1b", "1b"])], ["a.gpkg"])
    assert "column species (2 values); not used: plot (2 values)" in note.text
    assert not agreed([some], ["a.gpkg"], column="gut")[1]
    assert not agreed([marked([0, 20], label=["a", "b"])], ["a.gpkg"])[1]


def test_images_with_the_same_columns_take_the_same_one() -> None:
    full = marked([0, 20], label=["oak", "ash"], name=["x", "y"])
    blank = marked([0, 20], label=["", ""], name=["x", "y"])
    found, _ = agreed([full, blank], ["a.csv", "a.csv"])
    assert [each.label.tolist() for each in found] == [["oak", "ash"], ["", ""]]


def test_what_is_drawn_by_hand_into_a_layer_of_ours() -> None:
    def ours(*labels: str) -> Annotations:
        n = len(labels)
        ids = [f"i{row}" for row in range(n)]
        return marked(
            [20.0 * row for row in range(n + 1)],
            id=[*ids, ""],
            label=[*labels, ""],
            score=[0.5] * n + [np.nan],
        )

    (found,), (note,) = agreed([ours("oak", "oak")], ["a.gpkg"])
    assert found.label.tolist() == ["oak", "oak", "oak"]
    assert (note.code, note.kind) == ("drawn-by-hand", "choice")
    (found,), (note,) = agreed([ours("oak", "ash")], ["a.gpkg"])
    assert found.label.tolist() == ["oak", "ash", ""]
    assert note.code == "drawn-by-hand"
    # A class that is missing in another's layer isn't guessed.
    (found,), _ = agreed([marked([0, 20], label=["oak", ""])], ["a.gpkg"])
    assert found.label.tolist() == ["oak", ""]


def test_the_same_individual_counts_once_and_is_told() -> None:
    some = marked([0, 0, 1, 20, 20], label=["a", "a", "a", "a", "b"])
    (found,), notes = without_repeated([some], ["a.gpkg"])
    assert found.label.tolist() == ["a", "a", "b"]
    assert found.dropped == {"on another one of the same class": 2}
    assert [(note.code, note.kind) for note in notes] == [
        ("annotations-repeated", "doubt"), ("classes-coincide", "doubt")
    ]  # fmt: skip
    assert notes[0].text.startswith("2 of 5 annotations")
    (note,) = repeated_said([some], ["a.gpkg"])
    assert (note.code, note.text[:6]) == ("detections-repeated", "2 of 5")


def test_what_is_ignored_is_not_compared() -> None:
    some = marked([0, 0], label=["a", "a"], iscrowd=[1, 0])
    (found,), notes = without_repeated([some], ["a.json"])
    assert len(found) == 2
    assert not notes
