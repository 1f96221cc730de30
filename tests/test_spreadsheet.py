"""Texts in tables: no spreadsheet takes one for a formula, and each is read back as it was."""

from __future__ import annotations

import csv
import io
import re

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecodetect.formats.tables.spreadsheet import as_cell, as_class_cell, from_cell, from_class_cell

SIGNS = "=+-@＝＋－＠"
texts = st.text(alphabet=st.sampled_from([*SIGNS, *"'\" \t\r\n;,|a1", "\ufeff", "\u200b"]), max_size=12)


@given(texts)
def test_each_text_comes_back(text: str) -> None:
    assert from_cell(as_cell(text)) == text


WORDS = ["NA", "na", "N/A", "#N/A", "#NA", "<NA>", "nan", "NaN", "null", "NULL", "<null>", "None", "1.#IND"]
WORDS += ["#N/A N/A", "-nan", "-NaN", "-1.#QNAN", "1.#QNAN", "n/a"]


@given(st.sampled_from(["", "'", "''", " "]), st.sampled_from([*WORDS, "oak", "=1", "", "NAN A"]))
def test_each_class_comes_back(before: str, word: str) -> None:
    assert from_class_cell(as_class_cell(before + word)) == before + word


@pytest.mark.parametrize("word", WORDS)
def test_pandas_reads_no_class_as_missing(word: str) -> None:
    text = f"label\n{as_class_cell(word)}\n"
    assert pandas.read_csv(io.StringIO(text)).label.tolist() == [f"'{word}"]
    assert pandas.read_csv(io.StringIO(f"label\n{word}\n")).label.isna().all() or word in ("na", "<null>")


@given(texts)
def test_no_cell_begins_like_a_formula_whatever_divides_cells(text: str) -> None:
    written = as_cell(text)
    for cell in re.split(r"[;,\t\r\n|]", written):
        assert not re.match(f'[\\s"\ufeff\u200b]*[{re.escape(SIGNS)}]', cell)
    assert not written.startswith(("\t", "\r", "\n"))


@pytest.mark.parametrize(
    "text", ["", "oak", "Quercus robur L.", "d'Arc", "'quoted'", "a-b", "1 = 2", "it's -5", "50 %", "x;y"]
)
def test_ordinary_texts_stay(text: str) -> None:
    assert as_cell(text) == text
    assert from_cell(text) == text


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("-5", "'-5"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("＝1", "'＝1"),
        ("'=1", "''=1"),
        ("\tx", "'\tx"),
        ('"=1', "'\"=1"),
        ("oak;=1", "oak;'=1"),
    ],
)
def test_an_apostrophe_says_that_it_is_text(text: str, cell: str) -> None:
    assert as_cell(text) == cell


def test_a_quoted_cell_is_no_formula_for_who_divides_by_semicolons() -> None:
    (line,) = [",".join(f'"{as_cell("oak;=cmd")}"' for _ in range(2))]
    for row in csv.reader([line], delimiter=";"):
        assert not any(cell.startswith("=") for cell in row)
