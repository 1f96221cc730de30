"""Names of bands: from words, colours and custom; the lists that users write."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ecodetect.bands import Naming, choose, described, name_bands
from ecodetect.errors import RasterError

RGB = ["red", "green", "blue"]


def never(index: int) -> bool | None:
    raise AssertionError(f"band {index} was looked at")


def named(
    descriptions: list[str | None],
    interpretations: list[str] | None = None,
    dtype: str = "uint16",
    is_mask: Callable[[int], bool | None] = never,
) -> Naming:
    return name_bands(descriptions, interpretations or ["undefined"] * len(descriptions), dtype, is_mask)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Red", "red"),
        ("R", "red"),
        ("band 3: Blue", "blue"),
        ("NIR", "nir"),
        ("Near-Infrared", "nir"),
        ("near infrared 1", "nir"),
        ("nir2", "nir2"),
        ("band 4 - nir", "nir"),
        ("N", "nir"),
        ("infrared", "nir"),
        ("Red Edge", "red_edge"),
        ("rededge", "red_edge"),
        ("RED_EDGE_2", "red_edge2"),
        ("Shortwave Infrared 1", "swir"),
        ("SWIR2", "swir2"),
        ("thermal infrared", "thermal"),
        ("LWIR", "thermal"),
        ("Panchromatic", "grey"),
        ("Gray", "grey"),
        ("coastal aerosol", "coastal"),
        ("red - green", None),
        ("altered", None),
        ("ndvi", None),
        ("", None),
    ],
)
def test_words_for_bands(text: str, name: str | None) -> None:
    assert described(text) == name


def test_words_count_before_colours() -> None:
    naming = named(["blue", "green", "red", "nir"], ["red", "green", "blue", "undefined"])
    assert naming.names == ("blue", "green", "red", "nir")


def test_sentinel_2_by_its_codes() -> None:
    codes = ["B02", "B03", "B04", "B05", "B08", "B8A", "B11", "B12"]
    assert named(list(codes)).names == (
        "blue", "green", "red", "red_edge", "nir", "nir2", "swir", "swir2",
    )  # fmt: skip
    assert named(["B2", "B4", "B8", "B8A"]).names == ("blue", "red", "nir", "nir2")


def test_landsat_by_its_codes() -> None:
    assert named(["SR_B2", "SR_B4", "SR_B5", "ST_B10"]).names == ("blue", "red", "nir", "thermal")


def test_plain_numbers_are_no_codes() -> None:
    assert named(["B1", "B2", "B3", "B4"]).names == ("band1", "band2", "band3", "band4")


def test_worldview_names() -> None:
    words = ["coastal", "blue", "green", "yellow", "red", "rededge", "nir1", "nir2"]
    assert named(list(words)).names == (
        "coastal", "blue", "green", "yellow", "red", "red_edge", "nir", "nir2",
    )  # fmt: skip


def test_a_single_band_is_grey_unless_it_says_more() -> None:
    assert named([None], ["gray"]).names == ("grey",)
    assert named(["hillshade"], ["undefined"]).names == ("grey",)
    assert named(["Green"], ["gray"]).names == ("green",)
    assert named([None, None], ["gray", "alpha"], is_mask=lambda _: True).names == ("grey", "alpha")


def test_three_bands_without_names_are_red_green_blue_and_it_is_said() -> None:
    naming = named([None] * 3, ["gray", "undefined", "undefined"])
    assert naming.names == ("red", "green", "blue")
    assert "taken as red, green and blue" in str(naming.notes[0])
    assert named([None] * 3, dtype="float32").names == ("band1", "band2", "band3")
    assert named([None] * 4).names == ("band1", "band2", "band3", "band4")


def test_near_infrared_is_never_taken_for_alpha() -> None:
    naming = named([None] * 4, [*RGB, "alpha"], is_mask=lambda index: False)
    assert naming.names == (*RGB, "nir")
    assert naming.alpha is None
    assert "flagged as alpha" in str(naming.notes[0])


@pytest.mark.parametrize("seen", [True, None])
def test_a_real_alpha_is_a_mask(seen: bool | None) -> None:
    naming = named([None] * 4, [*RGB, "alpha"], is_mask=lambda _: seen)
    assert naming.alpha == 3
    assert not naming.notes


@pytest.mark.parametrize(("seen", "name"), [(False, "nir"), (None, "nir"), (True, "alpha")])
def test_a_fourth_band_without_a_name(seen: bool | None, name: str) -> None:
    naming = named([None] * 4, [*RGB, "undefined"], is_mask=lambda _: seen)
    assert naming.names == (*RGB, name)
    assert len(naming.notes) == 1


def test_near_infrared_before_a_mask() -> None:
    naming = named([None] * 5, [*RGB, "undefined", "alpha"], is_mask=lambda index: index == 4)
    assert naming.names == (*RGB, "nir", "alpha")


def test_a_name_is_given_once() -> None:
    assert named(["red", "red", "red"]).names == ("red", "band2", "band3")


# -- what users write

NAIP = Naming(("red", "green", "blue", "nir"), ("R", None, None, "Near infrared"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("red,green,nir", [("red", 0), ("green", 1), ("nir", 3)]),
        (" NIR , Red ", [("nir", 3), ("red", 0)]),
        ("4,1", [("nir", 3), ("red", 0)]),
        ("3,2,1", [("blue", 2), ("green", 1), ("red", 0)]),
        ("near infrared", [("nir", 3)]),
        ("red=4,green=1", [("red", 3), ("green", 0)]),
        ("R=nir", [("red", 3)]),
    ],
)
def test_lists_of_bands(text: str, expected: list[tuple[str, int]]) -> None:
    assert choose(NAIP, text, "a.tif") == expected


def test_three_numbers_of_bands_without_names_are_red_green_blue() -> None:
    nameless = named([None] * 6)
    assert choose(nameless, "6,4,2", "a.tif") == [("red", 5), ("green", 3), ("blue", 1)]
    assert choose(nameless, "6,4", "a.tif") == [("band6", 5), ("band4", 3)]
    guessed = named([None] * 3)
    assert choose(guessed, "3,2,1", "a.tif") == [("red", 2), ("green", 1), ("blue", 0)]


def test_a_band_by_its_description() -> None:
    assert choose(named(["elevation", "slope"]), "Slope", "a.tif") == [("band2", 1)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5", "a.tif has 4 bands; there is no band 5."),
        ("0", "there is no band 0"),
        ("grene", "did you mean green"),
        ("swir", "It has red, green, blue, nir"),
        ("", "no band in ''"),
        ("red,red", "named twice"),
        ("red=7", "no band 7"),
    ],
)
def test_bands_that_are_not_there(text: str, message: str) -> None:
    with pytest.raises(RasterError, match=message):
        choose(NAIP, text, "a.tif")
