"""What texts, wavelengths and metadata mean as bands."""

from __future__ import annotations

import pytest

from ecodetect.raster.band_words import Sensor, by_wavelength, described, nanometres, sensor_in


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
        ("668 nm", "red"),
        ("Band 06: 668.0 Nanometers", "red"),
        ("0.842 Micrometers", "nir"),
        ("630-690 nm", "red"),
        ("Red (668/14 nm)", "red"),
        ("B4, central wavelength 665 nm", "red"),
        ("10.9 µm", "thermal"),
        ("1250 nm", None),
        ("green_i", "green_i"),
        ("GreenI", "green_i"),
        ("coastal_blue", "coastal"),
        ("MS_RE", "red_edge"),
        ("MS_G", "green"),
        ("Panchro", "grey"),
        ("rojo", "red"),
        ("Verde", "green"),
        ("AZUL", "blue"),
        ("infrarrojo cercano", "nir"),
        ("Infrarrojo de onda corta", "swir"),
        ("térmico", "thermal"),
        ("rouge", "red"),
        ("Vert", "green"),
        ("bleu", "blue"),
        ("proche infrarouge", "nir"),
        ("Rot", "red"),
        ("Grün", "green"),
        ("blau", "blue"),
        ("nahes Infrarot", "nir"),
        ("vermelho", "red"),
        ("infravermelho próximo", "nir"),
        ("borda vermelha", "red_edge"),
        ("rosso", "red"),
        ("blu", "blue"),
        ("infrarosso", "nir"),
        ("infrarosso vicino", "nir"),
        ("rood", "red"),
        ("vertical", None),
        ("rotation", None),
        ("red - green", None),
        ("altered", None),
        ("ndvi", None),
        ("", None),
    ],
)
def test_words_for_bands(text: str, name: str | None) -> None:
    assert described(text) == name


@pytest.mark.parametrize(
    ("text", "unit", "nm"),
    [
        ("668", "nm", 668),
        ("668", "", 668),
        ("0.668", "", 668),
        ("0.668", "Micrometers", 668),
        ("668.0", "Nanometers", 668),
        ("15000", "wavenumber", None),
        ("red", "", None),
        ("3", "", 3000),
        ("-1", "", None),
        ("nan", "", None),
    ],
)
def test_wavelengths_of_metadata(text: str, unit: str, nm: float | None) -> None:
    assert nanometres(text, unit) == pytest.approx(nm)


@pytest.mark.parametrize(
    ("said", "sensor"),
    [
        (["Sentinel-2A"], "sentinel2"),
        (["S2B_MSIL2A_20200101T101021_N0500.tif"], "sentinel2"),
        (["LANDSAT_8"], "landsat8"),
        (["LC09_L2SP_196027_20220101_SR_B4.TIF"], "landsat8"),
        (["HLS.L30.T32TQM.2020001.tif"], "landsat8"),
        (["LE07_L1TP_196027.tif"], "landsat7"),
        (["LANDSAT_5", "TM"], "landsat7"),
        (["LANDSAT_5 MSS"], None),
        (["Sentinel-2 and Landsat 8"], None),
        (["ortho_s2.tif"], None),
        ([], None),
    ],
)
def test_satellites_in_metadata_and_names(said: list[str], sensor: Sensor | None) -> None:
    assert sensor_in(said) == sensor


def test_every_wavelength_of_a_usual_sensor_has_its_colour() -> None:
    sensors = {
        "blue": (475, 490, 482),
        "green": (550, 560),
        "red": (650, 655, 665, 668),
        "nir": (790, 842, 865),
    }
    for name, waves in sensors.items():
        assert {by_wavelength(nm) for nm in waves} == {name}
