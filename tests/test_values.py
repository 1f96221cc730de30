"""The same scene in another unit is seen as the model has learned it, and what is unlike is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import learned as models_of
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from training_sets import write_boxes, write_raster

from ecodetect.annotations.class_folders import gather_classes
from ecodetect.annotations.contract import contract
from ecodetect.annotations.dataset import Dataset, Spot
from ecodetect.annotations.options import AnnotationOptions
from ecodetect.annotations.sources import gather
from ecodetect.bundle import file as bundle
from ecodetect.bundle.card import Card, LearnedValues, Scaling
from ecodetect.bundle.input_spec import input_spec
from ecodetect.bundle.scaling import scaled
from ecodetect.bundle.value_survey import Companions, choice_of, shared, survey
from ecodetect.bundle.values import (
    EIGHT_BIT,
    UNITS,
    Measured,
    ValueUnit,
    chosen,
    learned_from,
    mapped,
    measured,
    remarks,
    unlike,
)
from ecodetect.chip import Chip
from ecodetect.classification.folders import beside as pictures_beside
from ecodetect.errors import UserError
from ecodetect.grid import Grid, Window
from ecodetect.raster.reading import open_raster
from ecodetect.scanning.question import prepare, question
from ecodetect.scanning.settings import Settings

RGB = ("red", "green", "blue")
FIXED = Scaling(offset=(120.0, 110.0, 90.0), span=(40.0, 35.0, 30.0))
SURVEY = Scaling(mode="survey")


def scene(side: int = 96, seed: int = 0, *, low: float = 20, high: float = 230) -> NDArray[np.float64]:
    """Smooth rough ground of three bands as 0 to 255, no two pixels alike."""
    rng = np.random.default_rng(seed)
    rough = rng.normal(0, 1, (3, side, side)).cumsum(axis=1).cumsum(axis=2)
    rough -= rough.min(axis=(1, 2), keepdims=True)
    rough /= rough.max(axis=(1, 2), keepdims=True)
    return low + rough * (high - low)


def ground(seed: int) -> NDArray[np.float64]:
    """Rough ground in light of its own, brighter in red than in blue, as 0 to 255."""
    rng = np.random.default_rng(seed)
    rough = 110 + rng.normal(0, 25, (3, 64, 64)) + np.reshape([20, 5, -15], (3, 1, 1))
    return np.clip(rough * rng.uniform(0.85, 1.15), 1, 254)


def in_unit(values: NDArray[Any], unit: ValueUnit, dtype: str) -> NDArray[Any]:
    stretched = unit.low + values / 255 * (unit.high - unit.low)
    return np.rint(stretched).astype(dtype) if np.dtype(dtype).kind in "iu" else stretched.astype(dtype)


def found(pixels: NDArray[Any], **facts: Any) -> Measured:
    """What a survey finds of pixels (3, H, W)."""
    _, height, width = pixels.shape
    chip = Chip(pixels, None, RGB, Window(0, 0, width, height), Grid(width, height))
    return measured([chip], str(pixels.dtype), **facts)


WAYS = [
    *((unit, dtype) for unit in UNITS[2:] for dtype in ("uint16", "int32", "uint32", "float32")),
    *((unit, "int16") for unit in UNITS[2:] if unit.high < 2**15),
    *((unit, dtype) for unit in UNITS[:2] for dtype in ("float32", "float64")),
]


@pytest.mark.parametrize("is_of_bytes", [False, True])
@pytest.mark.parametrize(("unit", "dtype"), WAYS)
def test_the_unit_of_a_scene_is_found(unit: ValueUnit, dtype: str, is_of_bytes: bool) -> None:
    values = np.rint(scene()) if is_of_bytes else scene()
    pixels = in_unit(values, unit, dtype)
    assert chosen([found(pixels)]).unit == unit


@pytest.mark.parametrize("shift", [2, 4, 6, 8])
def test_bits_that_were_shifted(shift: int) -> None:
    pixels = np.rint(scene()).astype(np.uint16) << shift
    assert chosen([found(pixels)]).unit == ValueUnit(0, 2.0 ** (8 + shift) - 1)


def test_a_dark_picture_of_bytes_is_known_by_its_levels() -> None:
    dark = np.rint(scene(low=3, high=50))
    assert chosen([found(in_unit(dark, ValueUnit(0, 4095), "uint16"))]).unit == ValueUnit(0, 4095)
    assert chosen([found(in_unit(dark, ValueUnit(0, 1), "float32"))]).unit == ValueUnit(0, 1)


def test_few_hot_or_saturated_pixels_and_fill_do_not_decide() -> None:
    pixels = in_unit(scene(), ValueUnit(0, 4095), "uint16")
    pixels[:, 3, 3:8] = (65535, 60000, 65535, 9, 9)
    pixels[0, 5, 5] = 65534
    assert chosen([found(pixels)]).unit == ValueUnit(0, 4095)
    pixels[:, :80] = 65535  # most of it, declared nowhere
    assert chosen([found(pixels)]).unit == ValueUnit(0, 4095)
    signed = in_unit(scene(), ValueUnit(0, 10000), "int16")
    signed[:, :80] = -9999
    assert chosen([found(signed)]).unit == ValueUnit(0, 10000)


def test_reflectance_above_one_stays_reflectance() -> None:
    roofs = in_unit(scene(), ValueUnit(0, 1), "float32")
    roofs[:, 10:20, 10:20] = 1.7
    assert chosen([found(roofs)]).unit == ValueUnit(0, 1)
    clouds = in_unit(scene(), ValueUnit(0, 10000), "uint16")
    clouds[:, :15, :15] = np.arange(225).reshape(15, 15) * 10 + 13700
    assert chosen([found(clouds)]).unit == ValueUnit(0, 10000)


def test_tags_come_before_values() -> None:
    dark = in_unit(scene(high=50), ValueUnit(0, 4095), "uint16")
    assert chosen([found(dark, value_range=(0.0, 4095.0))]).unit == ValueUnit(0, 4095)
    landsat = np.rint((scene() / 255 + 0.2) / 2.75e-5).astype(np.uint16)
    unit = chosen([found(landsat, scale=(2.75e-5, -0.2))]).unit
    assert unit is not None
    assert (unit.low, unit.high) == (pytest.approx(7272.7, abs=0.1), pytest.approx(43636.4, abs=0.1))


@pytest.mark.parametrize(
    "pixels",
    [
        scene().astype(np.float32) / -10,  # decibel
        scene().astype(np.float32) * 1e-11,
        scene().astype(np.float64) * 1e6,
        (scene() - 120).astype(np.int16),
    ],
)
def test_other_numbers_are_of_no_unit(pixels: NDArray[Any]) -> None:
    choice = chosen([found(pixels)])
    assert choice.unit is None
    assert choice.is_strange


def test_a_raster_without_a_valid_pixel_is_not_strange() -> None:
    choice = chosen([found(np.zeros((3, 8, 8), np.uint16))])
    assert choice.unit is None
    assert not choice.is_strange


def test_a_mapped_scaling_gives_the_same_input() -> None:
    values = scene()
    as_learned = (values - np.reshape(FIXED.offset, (3, 1, 1))) / np.reshape(FIXED.span, (3, 1, 1))
    for unit, dtype in WAYS:
        made = scaled(in_unit(values, unit, dtype), None, mapped(FIXED, unit, EIGHT_BIT), 0.0)
        np.testing.assert_allclose(made, as_learned, atol=0.02)  # rounded to whole numbers: half a level
    assert mapped(FIXED, EIGHT_BIT, EIGHT_BIT) is FIXED


# -- rasters -----------------------------------------------------------------------------------------------


def card(scaling: Scaling = FIXED, unit: ValueUnit = EIGHT_BIT) -> Card:
    """A card of one who has learned 40 scenes."""
    taught = [
        (replace(found(in_unit(ground(seed), unit, "float64")), dtype="uint8"), unit) for seed in range(40)
    ]
    made = models_of.card("obia", bands=RGB, unit="m", gsd=0.5, scaling=scaling, name="shrubs")
    return replace(made, learned=learned_from(taught, RGB, unit, scaling))


def written(path: Path, pixels: NDArray[Any], **profile: Any) -> Path:
    write_raster(path, pixels)
    if profile:
        with rasterio.open(path, "r+") as file:
            for name, value in profile.items():
                setattr(file, name, value)
    return path


def model(tmp_path: Path, made: Card) -> str:
    path = tmp_path / "model.safetensors"
    bundle.write(path, models_of.bundle(made))
    return str(path)


def test_a_scan_maps_and_says_so(tmp_path: Path) -> None:
    asked = Settings(model=model(tmp_path, card()))
    eight = written(tmp_path / "a.tif", np.rint(ground(100)).astype(np.uint8))
    twelve = written(tmp_path / "b.tif", in_unit(ground(100), ValueUnit(0, 4095), "uint16"))
    with open_raster(eight) as raster:
        plain = prepare(raster, asked)
        assert not [note.code for note in plain.notes if note.code.startswith("values")]
        as_learned: Any = plain.detector
        assert as_learned.scaling == FIXED
        assert "offset" not in as_learned.settings
    with open_raster(twelve) as raster:
        plan = prepare(raster, asked)
        other: Any = plan.detector
        assert other.scaling == mapped(FIXED, ValueUnit(0, 4095), EIGHT_BIT)
        (note,) = (note for note in plan.notes if note.code == "values-mapped")
        assert note.kind == "choice"
        assert "12 bit (0 to 4,095) and mapped to 8 bit" in str(note)
        stated = prepare(raster, replace(asked, values=ValueUnit(0, 2000)))
    assert len({plain.key, plan.key, stated.key}) == 3
    told: Any = stated.detector
    assert told.scaling == mapped(FIXED, ValueUnit(0, 2000), EIGHT_BIT)


def test_a_model_of_other_values_sees_bytes(tmp_path: Path) -> None:
    asked = Settings(model=model(tmp_path, card(unit=ValueUnit(0, 4095))))
    eight = written(tmp_path / "a.tif", np.rint(scene()).astype(np.uint8))
    with open_raster(eight) as raster:
        seen: Any = question(raster, asked).detector
    assert seen.scaling == mapped(FIXED, EIGHT_BIT, ValueUnit(0, 4095))


def test_numbers_of_no_unit_are_refused_and_stated_ones_taken(tmp_path: Path) -> None:
    asked = Settings(model=model(tmp_path, card()))
    radar = written(tmp_path / "radar.tif", scene().astype(np.float32) / -10)
    with open_raster(radar) as raster:
        with pytest.raises(UserError, match=r"radar\.tif has values that 'shrubs' can't be given.*LOW:HIGH"):
            question(raster, asked)
        question(raster, replace(asked, values=ValueUnit(-25, 0)))


def test_a_detector_that_learns_nothing_has_no_use_for_values(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tif", np.rint(scene()).astype(np.uint8))
    with (
        open_raster(path) as raster,
        pytest.raises(UserError, match="takes what is black and white from the raster"),
    ):
        question(raster, Settings(model="threshold", values=EIGHT_BIT))


def test_models_that_do_not_say_open_as_before_with_a_note(tmp_path: Path) -> None:
    old = replace(card(), learned=None)
    assert "learned" not in old.to_json()
    assert Card.from_json(old.to_json(), source="x") == old
    assert Card.from_json(card().to_json(), source="x").learned == card().learned
    path = written(tmp_path / "a.tif", in_unit(scene(), ValueUnit(0, 4095), "uint16"))
    with open_raster(path) as raster:
        plan = prepare(raster, Settings(model=model(tmp_path, old)))
    seen: Any = plan.detector
    assert seen.scaling == FIXED
    assert "values-unknown" in {note.code for note in plan.notes}


def test_rasters_of_one_folder_share_a_unit_and_stretched_bytes_do_not(tmp_path: Path) -> None:
    bright = written(tmp_path / "bright.tif", in_unit(scene(), ValueUnit(0, 4095), "uint16"))
    dark = written(tmp_path / "dark.tif", in_unit(scene(high=55), ValueUnit(0, 4095), "uint16"))
    shifted = written(tmp_path / "shifted.tif", np.rint(scene()).astype(np.uint16) << 2)
    beside = Companions([str(path) for path in (bright, dark, shifted)], open_raster)
    with open_raster(dark) as raster:
        alone, _ = choice_of(raster, RGB)
        together, _ = choice_of(raster, RGB, companions=beside)
    assert alone is not None
    assert alone.unit == ValueUnit(0, 1023)
    assert together is not None
    assert together.unit == ValueUnit(0, 4095)
    with open_raster(shifted) as raster:
        own, _ = choice_of(raster, RGB, companions=beside)
    assert own is not None
    assert own.unit == ValueUnit(0, 1023)


def test_a_dark_raster_beside_stretched_bytes_has_their_unit(tmp_path: Path) -> None:
    twelve = ValueUnit(0, 4095)
    dark = written(tmp_path / "dark.tif", in_unit(scene(high=55), twelve, "uint16"))
    paths = [
        dark,
        *(written(tmp_path / f"{n}.tif", in_unit(np.rint(scene()), twelve, "uint16")) for n in "ab"),
    ]
    beside = Companions([str(path) for path in paths], open_raster)
    with open_raster(dark) as raster:
        choice, _ = choice_of(raster, RGB, companions=beside)
    assert choice is not None
    assert (choice.unit, choice.by) == (twelve, "survey")
    assert "beside it by their levels" in choice.evidence
    taught = shared([(str(path), "uint16", RGB) for path in paths], lambda n: open_raster(paths[n]), None)
    assert {each.unit for each in taught} == {twelve}
    # Two units beside it: the folder is mixed, and says nothing.
    written(paths[2], in_unit(np.rint(scene()), ValueUnit(0, 65535), "uint16"))
    with open_raster(dark) as raster:
        alone, _ = choice_of(raster, RGB, companions=Companions([str(path) for path in paths], open_raster))
    assert alone is not None
    assert alone.unit == ValueUnit(0, 1023)


def test_pictures_in_folders_by_class_share_a_unit(tmp_path: Path) -> None:
    for name, high in (("bright", 230), ("dark", 55)):
        (tmp_path / name).mkdir()
        for number in range(2):
            pixels = in_unit(scene(32, number, high=high), ValueUnit(0, 4095), "uint16")
            written(tmp_path / name / f"{number}.tif", pixels)
    sources = gather_classes(tmp_path).sources
    assert {source.unit.unit for source in sources if source.unit} == {ValueUnit(0, 4095)}
    beside = pictures_beside([Path(source.image) for source in sources], AnnotationOptions())
    for source in sources:
        with source.open() as raster:
            choice, _ = choice_of(raster, RGB, companions=beside)
        assert choice is not None
        assert choice.unit == ValueUnit(0, 4095)


@pytest.mark.parametrize(
    ("unit", "dtype", "fill"), [(ValueUnit(0, 0.4), "float32", -1), (ValueUnit(0, 4095), "uint16", 9999)]
)
def test_a_filling_that_nobody_declared_does_not_decide(
    tmp_path: Path, unit: ValueUnit, dtype: str, fill: float
) -> None:
    pixels = in_unit(scene(), unit, dtype)
    pixels[:, :20] = fill
    with open_raster(written(tmp_path / "a.tif", pixels)) as raster:
        choice, found = choice_of(raster, RGB)
        assert choice is not None
        assert choice.unit == unit
        assert found is not None
        assert fill not in found.values


@pytest.mark.parametrize(("nodata", "code"), [(None, "values-none"), (0, "nodata-everywhere")])
def test_a_raster_in_which_nothing_can_be_seen_is_said(tmp_path: Path, nodata: int | None, code: str) -> None:
    path = written(tmp_path / "a.tif", np.zeros((3, 64, 64), np.uint16), nodata=nodata)
    with open_raster(path) as raster:
        (note,) = remarks("a.tif", card(), None, survey(raster, RGB))
    assert note.code == code


def test_what_unlike_values_are_taken_for_is_said_where_nothing_is_mapped() -> None:
    percent = found((ground(100) * 0.3).astype(np.float32))
    (note,) = remarks("a.tif", card(), chosen([percent]), percent)
    assert "taken for 8 bit (0 to 255): if that is wrong, state which" in note.text


def test_a_raster_mostly_without_data_is_looked_at_more_closely(tmp_path: Path) -> None:
    pixels = np.zeros((3, 64, 8 * 512), np.uint16)
    pixels[:, :, 600:700] = in_unit(scene(100), ValueUnit(0, 4095), "uint16")[:, :64]
    path = written(tmp_path / "a.tif", pixels, nodata=0)
    with open_raster(path) as raster:
        assert sum(part.shape[1] for part in survey(raster, RGB).parts) > 1000


def test_units_of_one_data_set_are_mapped_to_that_of_most(tmp_path: Path) -> None:
    paths: list[Path] = []
    for number, (unit, dtype) in enumerate(
        [(EIGHT_BIT, "uint8"), (EIGHT_BIT, "uint8"), (ValueUnit(0, 1), "float32")]
    ):
        image = written(tmp_path / f"{number}.tif", in_unit(scene(seed=1), unit, dtype))
        paths += [image, write_boxes(tmp_path / f"{number}.csv", [(10, 10, 30, 26)])]
    sources = gather(paths).sources
    made, notes = contract(sources, scaling="fixed")
    assert made.learned is not None
    assert (made.learned.low, made.learned.high) == (0, 255)
    assert made.learned.dtypes == ("float32", "uint8")
    assert [note.about for note in notes if note.code == "values-mapped"] == ["2.tif"]
    data = Dataset(sources, made)
    one, other = (data.chip(Spot(number, Window(0, 0, 64, 64))).image for number in (0, 2))
    assert np.abs(one - other).max() < 0.1
    forced = gather(paths[:2], AnnotationOptions(values=ValueUnit(0, 100))).sources[0]
    assert forced.unit is not None
    assert forced.unit.unit == ValueUnit(0, 100)


# -- likeness ----------------------------------------------------------------------------------------------


def verdict(pixels: NDArray[Any], scaling: Scaling = FIXED) -> str | None:
    made = card(scaling)
    assert made.learned is not None
    return unlike(made.learned, RGB, found(pixels), EIGHT_BIT, scaling)


def test_ordinary_ground_is_like_what_was_learned() -> None:
    for seed in range(100, 110):
        assert verdict(np.rint(ground(seed))) is None
        assert verdict(np.rint(ground(seed)), SURVEY) is None


def test_night_haze_and_a_constant_band_are_unlike() -> None:
    plain = ground(100)
    constant = plain.copy()
    constant[1] = 120
    for pixels, word in ((plain * 0.15, "darker"), (200 + plain * 0.2, "brighter"), (constant, "constant")):
        text = verdict(np.rint(pixels))
        assert text is not None
        assert word in text
    made = card()
    (note,) = remarks("night.tif", made, None, found(np.rint(plain * 0.15)))
    assert (note.code, note.kind) == ("values-unlike", "doubt")


def test_percentiles_make_light_alike_but_not_a_constant_band() -> None:
    plain = ground(100)
    assert verdict(plain * 0.15, SURVEY) is None
    plain[1] = 120
    assert "constant" in (verdict(plain, SURVEY) or "")


def test_so_dark_that_percentiles_leave_few_levels_is_said() -> None:
    plain = ground(100)
    assert verdict(np.rint(plain * 0.15).astype(np.uint8), SURVEY) is None
    assert "levels" in (verdict(np.rint(plain * 0.03).astype(np.uint8), SURVEY) or "")
    assert verdict((plain * 0.03).astype(np.float32), SURVEY) is None


def test_stated_values_take_the_place_of_percentiles(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tif", in_unit(ground(0), ValueUnit(0, 4095), "uint16"))
    made = card(SURVEY)
    with open_raster(path) as raster:
        assert input_spec(made, raster, ValueUnit(0, 4095)).scaling.mode == "survey"
        stated = input_spec(made, raster, ValueUnit(0, 4095), is_stated=True).scaling
    assert (stated.mode, stated.offset, stated.span) == ("fixed", (0.0,), (4095.0,))


@pytest.mark.parametrize("text", ["4095", "a:b", "10:10", "5:1", "0:inf", ""])
def test_values_that_are_no_range_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="LOW:HIGH"):
        ValueUnit.parse(text)


def test_a_damaged_card_is_refused() -> None:
    wrong = LearnedValues(dtypes=("uint8",), low=255.0, high=0.0)
    text = replace(card(), learned=wrong).to_json()
    with pytest.raises(UserError, match="learned"):
        Card.from_json(text, source="x")
