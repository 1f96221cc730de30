"""One class written in several ways is one class; the commonest spelling wins, whatever the order."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecodetect.annotations.class_names import joined, key


def names(*texts: str) -> np.ndarray:
    found = np.empty(len(texts), dtype=object)
    found[:] = texts
    return found


@pytest.mark.parametrize(
    "spelling",
    ["ziziphus lotus", "Ziziphus lotus ", " Ziziphus  lotus", "Ziziphus_lotus", "ZIZIPHUS\u00a0LOTUS",
     "Ziziphus\u200b lotus", "Ziziphus\tlotus"],
)  # fmt: skip
def test_case_and_blanks_make_no_other_class(spelling: str) -> None:
    labels, notes = joined([names("Ziziphus lotus", "Ziziphus lotus", spelling)])
    assert labels[0].tolist() == ["Ziziphus lotus"] * 3
    assert [(note.code, note.kind) for note in notes] == [("spellings-joined", "choice")]
    assert "'Ziziphus lotus' 2" in notes[0].text
    assert notes[0].parameter == "keep_spelling"


def test_accents_in_another_normal_form_make_no_other_class() -> None:
    composed, decomposed = (unicodedata.normalize(form, "Ibéris") for form in ("NFC", "NFD"))
    assert composed != decomposed
    assert joined([names(decomposed, decomposed, composed)])[0][0].tolist() == [composed] * 3


def test_a_turkish_capital_with_a_dot_makes_no_other_class() -> None:
    assert joined([names("iğde", "iğde", "İğde", "IĞDE")])[0][0].tolist() == ["iğde"] * 4


def test_spellings_that_look_alike_are_told_apart_in_the_note() -> None:
    spellings = ["Ibéris", unicodedata.normalize("NFD", "Ibéris"), "Ibéris\u00a0", "\u200bIbéris"]
    (note,) = joined([names(*spellings)])[1]
    for shown in ("'Ibéris' 1", r"'Ibe\u0301ris' 1", r"'Ibéris\u00a0' 1", r"'\u200bIbéris' 1"):
        assert shown in note.text


@pytest.mark.parametrize("other", ["Iberis", "Ibéris sp.", "Ibéris-1", "Ibéri"])
def test_other_words_are_other_classes(other: str) -> None:
    labels, notes = joined([names("Ibéris", other)])
    assert labels[0].tolist() == ["Ibéris", other]
    assert not notes


def test_the_commonest_spelling_of_all_files_wins() -> None:
    labels, notes = joined([names("oak", "oak", ""), names("Oak", "OAK ", "Oak", "Oak")])
    assert [each.tolist() for each in labels] == [["Oak", "Oak", ""], ["Oak"] * 4]
    assert "Oak ('Oak' 3, 'oak' 2, 'OAK ' 1)" in notes[0].text


def test_spellings_stay_apart_where_that_is_asked_for() -> None:
    labels, notes = joined([names("oak ", "Oak")], keep_spelling=True)
    assert labels[0].tolist() == ["oak ", "Oak"]
    assert not notes


@given(
    st.lists(st.sampled_from(["oak", "Oak", "oak ", "OAK", "ash", "Ash", "", " "]), max_size=12), st.randoms()
)
def test_the_order_of_the_rows_makes_no_difference(texts: list[str], random: object) -> None:
    shuffled = list(texts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = (joined([names(*each)])[0][0].tolist() for each in (texts, shuffled))
    assert sorted(one) == sorted(other)
    assert [key(name) for name in one] == [key(name) for name in texts]
    assert len(set(one)) == len({key(name) for name in texts})
