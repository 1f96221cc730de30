"""The columns of class and score, under the names that people and programs give them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ecodetect.formats.column_roles import (
    class_column,
    class_names,
    classes_in,
    score_column,
    scores,
    text_columns,
)


def columns(**values: Any) -> dict[str, np.ndarray]:
    return {
        name: np.array(each, dtype=object if any(isinstance(v, str) for v in each) else None)
        for name, each in values.items()
    }


@pytest.mark.parametrize(
    "name",
    ["label", "labels", "Class", "class_name", "SPECIES", "especie", "Espèce", "Art", "taxon",
     "classification", "Category Name", "scientificName", "Nombre científico", "Klasse", "prediction",
     "name", "物种"],
)  # fmt: skip
def test_a_class_under_many_names(name: str) -> None:
    assert class_column(columns(**{"note": ["x", "y", "x"], name: ["Seal", "Pup", "Seal"]})) == name


@pytest.mark.parametrize(
    ("table", "found"),
    [
        # ultralytics, supervision, HerdNet: numbers beside names
        ({"class": [0, 1], "name": ["tree", "snag"], "confidence": [0.5, 0.6]}, "name"),
        ({"class_id": [0, 0], "class_name": ["tree", "tree"]}, "class_name"),
        ({"labels": [1, 1], "species": ["topi", "topi"], "scores": [0.9, 0.8]}, "species"),
        ({"labels": [1, 2]}, "labels"),
        # empty columns hold no class
        ({"label": ["", ""], "species": ["Seal", ""]}, "species"),
        # names of individuals
        ({"name": [f"tree {n}" for n in range(12)], "class": [1, 2] * 6}, "class"),
        ({"is_tree": [True, False], "class": [True, False]}, None),
        ({"remarks": ["big", "small"]}, None),
        ({}, None),
    ],
)
def test_texts_go_before_numbers_and_classes_before_names(table: dict[str, Any], found: str | None) -> None:
    assert class_column(columns(**table)) == found


@pytest.mark.parametrize(
    "name", ["score", "Score", "scores", "confidence", "conf", "prob", "Probability", "detection_conf"]
)  # fmt: skip
def test_a_score_under_many_names(name: str) -> None:
    assert score_column(columns(**{"x": [1.0, 2.0], name: [0.5, 0.25]})) == name
    assert scores(columns(**{name: ["0.5", ""]})[name]).tolist()[0] == 0.5


def test_words_are_no_score() -> None:
    assert score_column(columns(confidence=["high", "low"])) is None
    assert score_column(columns(score=[np.nan, np.nan], conf=[0.5, 0.25])) == "conf"


def test_what_a_column_says_of_the_class() -> None:
    qupath = ['{"name": "Tumor", "color": [200, 0, 0]}', '{"names": ["Tumor", "Positive"]}', "{broken"]
    assert class_names(np.array(qupath, dtype=object)).tolist() == ["Tumor", "Tumor: Positive", "{broken"]
    # the same number with and without gaps in the column
    assert class_names(np.array([1, 2])).tolist() == ["1", "2"]
    assert class_names(np.array([1.0, np.nan, 2.5])).tolist() == ["1", "", "2.5"]
    missing = np.array(["NA", "nan", "NULL", "", "Naranja"], dtype=object)
    assert class_names(missing).tolist() == ["", "", "", "", "Naranja"]


def test_words_for_missing_values_are_classes_where_the_layer_is_ours() -> None:
    words = np.array(["NA", "nan", "null", "None", '{"name": "x"}'], dtype=object)
    ids = np.array([f"0000000{n}-{n}" for n in range(4)] + [""], dtype=object)  # the last was drawn by hand
    assert classes_in({"label": words, "id": ids}, "label").tolist() == words.tolist()
    assert class_column({"species": np.array(["x"] * 5, dtype=object), "label": words, "id": ids}) == "label"
    assert classes_in({"label": words, "id": words}, "label").tolist() == ["", "", "", "None", "x"]
    assert classes_in({"label": words}, "label", are_stated=True).tolist() == words.tolist()


def test_texts_that_might_be_classes() -> None:
    table = columns(
        plot=["a", "b", "a"],
        id=["1a", "1b", "1c"],
        tag=["t1", "t2", "t3"],
        day=["2024-05-01", "2024-05-02", "2024-05-01"],
        checked=["yes", "no", "yes"],
        height=["1.5", "2.5", "1.5"],
        code=["101", "102", "101"],
        size=[1.0, 2.0, 3.0],
        empty=["", "", ""],
    )
    assert text_columns(table) == {"plot": 2, "code": 2}
    assert text_columns(table, without=("plot", None)) == {"code": 2}
