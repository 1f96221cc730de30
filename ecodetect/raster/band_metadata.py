"""What an open raster file says of its bands: descriptions, wavelengths, the satellite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ecodetect.raster.band_words import Sensor, nanometres, sensor_in

_MOST = 1000  # bands whose metadata is looked at one by one
_WAVELENGTHS = ("WAVELENGTH", "CENTRAL_WAVELENGTH", "CENTER_WAVELENGTH", "CENTRAL_WAVELENGTH_NM")
_UNITS = ("WAVELENGTH_UNITS", "WAVELENGTH_UNIT", "CENTRAL_WAVELENGTH_UNIT")
_NAMES = ("BANDNAME", "BAND_NAME", "NAME")
# Words in the keys of metadata that say what took the picture.
_SENSOR_KEYS = ("sensor", "satellite", "spacecraft", "platform", "mission", "instrument", "product", "scene")


def tags(dataset: Any, *band: int, ns: str | None = None) -> dict[str, str]:
    """What a file says in one domain of its metadata; nothing if its text isn't UTF-8."""
    try:
        return dict(dataset.tags(*band, ns=ns))
    except UnicodeDecodeError:
        return {}


def descriptions(dataset: Any) -> tuple[str | None, ...]:
    """What a file says of its bands; nothing if its text isn't UTF-8."""
    try:
        return tuple(dataset.descriptions)
    except UnicodeDecodeError:
        return (None,) * int(dataset.count)


def described_bands(dataset: Any) -> tuple[tuple[str | None, ...], tuple[float | None, ...]]:
    """What a file says of each band in words, and its wavelength in nm where it states one."""
    texts = list(descriptions(dataset))
    if dataset.count > _MOST:
        return tuple(texts), ()
    whole = {key.lower(): value for key, value in tags(dataset).items()}
    envi = {key.lower(): value for key, value in tags(dataset, ns="ENVI").items()}
    listed = envi.get("wavelength", whole.get("wavelength", "")).strip("{} \n").split(",")
    unit = envi.get("wavelength_units", whole.get("wavelength_units", ""))
    waves: list[float | None] = [None] * dataset.count
    for index in range(dataset.count):
        band = {key.upper(): value for key, value in tags(dataset, index + 1).items()}
        # ENVI's names of bands are tags of the file too, and all that is left of them in a GeoTIFF.
        texts[index] = texts[index] or _first(band, _NAMES) or whole.get(f"band_{index + 1}")
        stated = _first(band, _WAVELENGTHS)
        imagery = tags(dataset, index + 1, ns="IMAGERY").get("CENTRAL_WAVELENGTH_UM")
        if stated is not None:
            waves[index] = nanometres(stated, _first(band, _UNITS) or unit)
        elif imagery is not None:
            waves[index] = nanometres(imagery, "um")
        elif len(listed) == dataset.count and listed[index].strip():
            waves[index] = nanometres(listed[index].strip(), unit)
    return tuple(texts), tuple(waves) if any(waves) else ()


def sensor_of(dataset: Any, name: str) -> Sensor | None:
    """The satellite that the metadata of a file speaks of, or its name."""
    said = [
        value[:200]
        for domain in (None, "IMAGERY")
        for key, value in tags(dataset, ns=domain).items()
        if any(word in key.lower() for word in _SENSOR_KEYS)
    ]
    return sensor_in(said) or sensor_in([name])


def _first(found: dict[str, str], keys: Sequence[str]) -> str | None:
    return next((found[key] for key in keys if found.get(key)), None)
