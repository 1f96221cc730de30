"""Names of bands: from words, colours and custom; the lists that users write."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ecodetect.errors import RasterError
from ecodetect.raster.band_words import Sensor
from ecodetect.raster.bands import Naming, choose, lacking, listed, name_bands

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


def test_words_count_before_colours() -> None:
    naming = named(["blue", "green", "red", "nir"], ["red", "green", "blue", "undefined"])
    assert naming.names == ("blue", "green", "red", "nir")


def test_sentinel_2_by_its_codes() -> None:
    codes = ["B02", "B03", "B04", "B05", "B08", "B8A", "B11", "B12"]
    assert named(list(codes)).names == (
        "blue", "green", "red", "red_edge", "nir", "nir2", "swir", "swir2",
    )  # fmt: skip
    assert named(["B2", "B4", "B8", "B8A"]).names == ("blue", "red", "nir", "nir2")


def test_sentinel_2_by_its_files() -> None:
    assert named(["T32TQM_20200101_B04_10m", "T32TQM_20200101_B08_10m"]).names == ("red", "nir")
    plain = [f"B{n}" for n in range(1, 13)]
    assert named(list(plain)).names[1:4] == ("blue", "green", "red")


@pytest.mark.parametrize(
    ("codes", "expected", "is_told"),
    [
        (["SR_B2", "SR_B4", "SR_B5", "ST_B10"], ("blue", "red", "nir", "thermal"), False),
        ([f"SR_B{n}" for n in (2, 3, 4, 5, 6, 7)], ("blue", "green", "red", "nir", "swir", "swir2"), False),
        ([f"SR_B{n}" for n in (1, 2, 3, 4, 5, 7)], ("blue", "green", "red", "nir", "swir", "swir2"), True),
        (["SR_B1", "SR_B3", "SR_B4", "ST_B6"], ("blue", "red", "nir", "thermal"), False),
        (["SR_B2", "SR_B3", "SR_B4"], ("blue", "green", "red"), True),
    ],
)
def test_landsat_by_its_codes(codes: list[str | None], expected: tuple[str, ...], is_told: bool) -> None:
    naming = named(codes)
    assert naming.names == expected
    assert [note.code for note in naming.notes] == ["band-numbers"] * is_told


@pytest.mark.parametrize(
    ("sensor", "name"), [("sentinel2", "red"), ("landsat8", "red"), ("landsat7", "nir"), (None, "band2")]
)
@pytest.mark.parametrize("code", ["B4", "Band 4", "band4", "4"])
def test_plain_numbers_count_where_the_satellite_is_known(
    sensor: Sensor | None, name: str, code: str
) -> None:
    naming = name_bands(
        ["B2" if code == "B4" else "2", code], ["gray"] * 2, "uint16", never, sensor=lambda: sensor
    )
    assert naming.names[1] == name


def test_plain_numbers_are_no_codes() -> None:
    assert named(["B1", "B2", "B3", "B4"]).names == ("band1", "band2", "band3", "band4")


def test_worldview_names() -> None:
    words = ["coastal", "blue", "green", "yellow", "red", "rededge", "nir1", "nir2"]
    assert named(list(words)).names == (
        "coastal", "blue", "green", "yellow", "red", "red_edge", "nir", "nir2",
    )  # fmt: skip


def test_planetscope_has_two_greens() -> None:
    words = ["coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"]
    assert named(list(words)).names == (
        "coastal", "blue", "green_i", "green", "yellow", "red", "red_edge", "nir",
    )  # fmt: skip


def test_cameras_with_two_bands_of_a_colour() -> None:
    words = ["Blue-444", "Blue", "Green-531", "Green", "Red-650", "Red", "Red edge-705", "Red edge"]
    assert named(list(words)).names == (
        "444nm", "blue", "531nm", "green", "650nm", "red", "705nm", "red_edge",
    )  # fmt: skip


def test_names_by_wavelength() -> None:
    words = [f"Band {n:02}: {nm} Nanometers" for n, nm in enumerate((475, 560, 668.0, 717, 842), 1)]
    expected = ("blue", "green", "red", "red_edge", "nir")
    assert named(list(words)).names == expected
    assert named(["475", "560", "668", "717", "842"]).names == expected
    stated = name_bands(
        [None] * 5, ["gray"] * 5, "float32", never, wavelengths_nm=(475.0, 560.0, 668.0, 717.0, 842.0)
    )
    assert stated.names == expected


def test_of_many_bands_of_a_colour_the_most_usual_one_has_its_name() -> None:
    waves = tuple(float(nm) for nm in range(400, 1000, 10))
    naming = name_bands([None] * 60, ["undefined"] * 60, "uint16", never, wavelengths_nm=waves)
    place = {name: waves[naming.names.index(name)] for name in ("blue", "green", "red", "red_edge", "nir")}
    assert place == {"blue": 480, "green": 560, "red": 660, "red_edge": 720, "nir": 840}
    assert naming.names[1] == "410nm"


def test_a_name_at_odds_with_its_wavelength_is_doubtful() -> None:
    naming = named(["red (842 nm)", "green (560 nm)"])
    assert naming.names == ("red", "green")
    assert [note.kind for note in naming.notes] == ["doubt"]


def test_channels_of_a_microscope_are_no_colours_by_their_laser() -> None:
    naming = name_bands(["GFP 488 nm", "Cy5"], ["gray"] * 2, "uint16", never, are_channels=True)
    assert naming.names == ("GFP 488 nm", "Cy5")
    assert choose(naming, "cy5", "a.tif") == [("Cy5", 1)]


def test_a_single_band_is_grey_unless_it_says_more() -> None:
    assert named([None], ["gray"]).names == ("grey",)
    assert named(["hillshade"], ["undefined"]).names == ("grey",)
    assert named(["Green"], ["gray"]).names == ("green",)
    assert named([None, None], ["gray", "alpha"], is_mask=lambda _: True).names == ("grey", "alpha")


def test_three_bands_without_names_are_red_green_blue_and_it_is_said() -> None:
    naming = named([None] * 3, ["gray", "undefined", "undefined"])
    assert naming.names == ("red", "green", "blue")
    assert "taken as red, green and blue" in naming.notes[0].text
    assert named([None] * 3, dtype="float32").names == ("band1", "band2", "band3")
    assert named([None] * 4).names == ("band1", "band2", "band3", "band4")


def test_a_fourth_band_of_0_and_255_beside_three_without_names_is_a_mask() -> None:
    naming = named([None] * 4, ["gray", *["undefined"] * 3], "uint8", is_mask=lambda index: index == 3)
    assert naming.names == ("red", "green", "blue", "alpha")
    assert [note for note in naming.notes if "mask" in note.text]
    plain = named([None] * 4, dtype="uint8", is_mask=lambda index: False)
    assert plain.names == ("band1", "band2", "band3", "band4")


def test_near_infrared_is_never_taken_for_alpha() -> None:
    naming = named([None] * 4, [*RGB, "alpha"], is_mask=lambda index: False)
    assert naming.names == (*RGB, "nir")
    assert naming.alpha is None
    assert "flagged as alpha" in naming.notes[0].text


@pytest.mark.parametrize("seen", [True, None])
def test_a_real_alpha_is_a_mask(seen: bool | None) -> None:
    naming = named([None] * 4, [*RGB, "alpha"], is_mask=lambda _: seen)
    assert naming.alpha == 3
    assert not naming.notes


@pytest.mark.parametrize(("seen", "name"), [(False, "nir"), (None, "nir"), (True, "alpha")])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_a_fourth_band_without_a_name(seen: bool | None, name: str, dtype: str) -> None:
    naming = named([None] * 4, [*RGB, "undefined"], dtype, is_mask=lambda _: seen)
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


# -- what a model lacks


@pytest.mark.parametrize(
    ("have", "said"),
    [
        (
            ["band1", "band2", "band3"],
            "has band1, band2, band3: say which is which, for example red=1,green=2,blue=3.",
        ),
        (
            ["red", "band2", "band3", "nir"],
            "for example red,green=2,blue=3, with the numbers that they have.",
        ),
        (["grey"], "has grey."),
        (["red", "green", "nir"], "has red, green, nir."),
    ],
)
def test_what_to_say_where_bands_have_no_names(have: list[str], said: str) -> None:
    assert lacking(["red", "green", "blue"], have).endswith(said)


def test_of_thousands_of_bands_a_message_names_a_few() -> None:
    names = [f"band{number}" for number in range(1, 4001)]
    assert listed(names) == "band1, band2, band3 to band4000"
    assert len(lacking(RGB, names)) < 200
