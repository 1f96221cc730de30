"""Naming the bands of a raster, and finding the bands that a user names.

A name is a colour of the spectrum (`red`, `green`, `blue`, `nir`, `red_edge`, `swir`, `thermal`, …), `grey`
for a single band, `alpha` for a mask, `531nm` for a wavelength beside the one that has the colour's name, or
`band1`, `band2`, … where nothing is known. What the file says of a band in words counts first, then its
satellite's number, its wavelength, its colour interpretation, then custom, which is told. Nothing here reads
files; what a text or a wavelength means is in `band_words`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise

from ecodetect.errors import RasterError
from ecodetect.notes import Note
from ecodetect.raster.band_words import (
    Sensor,
    by_wavelength,
    described,
    is_at_odds,
    nanometres,
    numbered,
    off_centre,
    worded,
)

# GDAL's colour interpretations by rasterio's names. "gray" is only GDAL's default for a first band, unless it
# is the only one.
_INTERPRETATIONS = {
    "red": "red",
    "green": "green",
    "blue": "blue",
    "nir": "nir",
    "rededge": "red_edge",
    "coastal": "coastal",
    "cyan": "cyan",
    "magenta": "magenta",
    "yellow": "yellow",
    "black": "black",
    "pan": "grey",
    "swir": "swir",
    "mwir": "mwir",
    "lwir": "thermal",
    "tir": "thermal",
    "alpha": "alpha",
}
RGB = ("red", "green", "blue")
_COLOURS = {*_INTERPRETATIONS.values(), "green_i"}
_FOURTH_IS_MASK = Note(
    "bands-guessed",
    "band 4 has no name; it is taken as a mask, as it holds one value beside 0.",
    kind="choice",
)


@dataclass(frozen=True, slots=True)
class Naming:
    """Names of a file's bands, in the order of the file.

    names : unique; `alpha` at most once.
    descriptions : what the file says of each band, or None.
    guessed : whether the colours are a custom that the file doesn't confirm.
    notes : what was guessed; they don't name the raster.
    """

    names: tuple[str, ...]
    descriptions: tuple[str | None, ...]
    guessed: bool = False
    notes: tuple[Note, ...] = ()

    @property
    def alpha(self) -> int | None:
        """Index of the band that is a mask."""
        return self.names.index("alpha") if "alpha" in self.names else None


def name_bands(
    descriptions: Sequence[str | None],
    interpretations: Sequence[str],
    dtype: str,
    is_mask: Callable[[int], bool | None],
    *,
    wavelengths_nm: Sequence[float | None] = (),
    sensor: Callable[[], Sensor | None] = lambda: None,
    are_channels: bool = False,
) -> Naming:
    """Names for the bands of a file.

    descriptions, interpretations : of each band, as the file states them.
    is_mask : whether the values of a band (0-based) are those of a mask: 0 and one other value; None: nothing
        but 0 was seen. Asked only of a band that is flagged as alpha, or of a fourth band without a name.
    wavelengths_nm : what the file's metadata says of each band beside its description; empty: nothing.
    sensor : the satellite that the file's metadata or name speaks of; asked only where a description may be
        the number of one's band.
    are_channels : bands are pages of a TIFF, as microscopes write them: each is called as the file calls it,
        or `page1`, `page2`, …; wavelengths are those of the light that excites, and three are not red, green
        and blue by custom.
    """
    count = len(interpretations)
    if are_channels:
        return _of_channels(descriptions)
    names, notes = _stated(descriptions, wavelengths_nm, sensor)
    for index, interpretation in enumerate(interpretations):
        names[index] = names[index] or _INTERPRETATIONS.get(interpretation)
    guessed = False
    for index, name in enumerate(names):
        if name == "alpha" and (count == 1 or is_mask(index) is False):
            # Aerial images with near infrared as fourth band are often flagged so by mistake.
            names[index] = "nir" if tuple(names[:index]) == RGB else None
            text = (
                f"band {index + 1} is flagged as alpha, but its values are not those of a mask: it is taken "
                f"as {names[index] or 'data'}."
            )
            notes.append(Note("alpha-is-data", text, kind="choice"))
    if names == [None] * 4 and not any(descriptions) and dtype == "uint8" and is_mask(3):
        names[3] = "alpha"
        notes.append(_FOURTH_IS_MASK)
    data = [index for index, name in enumerate(names) if name != "alpha"]
    unnamed = [index for index in data if names[index] is None]
    if len(data) == 1 and unnamed:
        names[data[0]] = "grey"
    elif unnamed == data == [0, 1, 2] and dtype in ("uint8", "uint16"):
        names[:3] = RGB
        guessed = True
        text = "the three bands have no names; they are taken as red, green and blue."
        notes.append(Note("bands-guessed", text, kind="choice"))
    elif data == [0, 1, 2, 3] and tuple(names[:3]) == RGB and unnamed == [3]:
        # Whatever the type: reflectance of an aerial image is the same scene.
        names[3] = "alpha" if "alpha" not in names and is_mask(3) else "nir"
        if names[3] == "alpha":
            notes.append(_FOURTH_IS_MASK)
        else:
            text = "band 4 has no name; it is taken as near infrared (nir)."
            notes.append(Note("bands-guessed", text, kind="choice"))
    return Naming(_unique(names), tuple(descriptions), guessed, tuple(notes))


def _stated(
    descriptions: Sequence[str | None],
    wavelengths_nm: Sequence[float | None],
    sensor: Callable[[], Sensor | None],
) -> tuple[list[str | None], list[Note]]:
    """What words, satellites' numbers and wavelengths say of each band; a colour is given once.

    Among several bands that may have one name, the one nearest to the usual wavelength gets it: cameras with
    ten bands have two greens, and imaging spectrometers twenty.
    """
    notes: list[Note] = []
    by_words = [worded(text) if text else (None, None) for text in descriptions]
    waves = [
        nm or known for (_, nm), known in zip(by_words, wavelengths_nm or _bare(descriptions), strict=True)
    ]
    may_be_numbers = any(text and any(c.isdigit() for c in text) for text in descriptions)
    unknown = [
        None if name or nm else text
        for text, (name, _), nm in zip(descriptions, by_words, waves, strict=True)
    ]
    codes, assumed = (
        numbered(descriptions, sensor() if any(unknown) else None)
        if may_be_numbers
        else ([None] * len(unknown), "")
    )
    if assumed:
        notes.append(
            Note(
                "band-numbers",
                f"the numbers of its bands are taken as those of {assumed}, as it doesn't say which "
                "satellite it is of; if it is another, name the bands.",
                kind="choice",
                parameter="bands",
            )
        )
    found: list[tuple[float, int, str]] = []
    for index, ((word, _), code, nm) in enumerate(zip(by_words, codes, waves, strict=True)):
        name = word or code or (by_wavelength(nm) if nm else None)
        if name is None:
            continue
        if nm and is_at_odds(name, nm):
            notes.append(
                Note(
                    "band-at-odds",
                    f"band {index + 1} is called {name}, but its wavelength of {nm:.4g} nm isn't: it is "
                    f"taken as {name}; if that is wrong, name the bands.",
                    kind="doubt",
                    parameter="bands",
                )
            )
        found.append((off_centre(name, nm) if nm else 0.0, index, name))
    names: list[str | None] = [f"{nm:.0f}nm" if nm else None for nm in waves]
    for _, index, name in sorted(found):
        if name not in names:
            names[index] = name
    return names, notes


def _of_channels(descriptions: Sequence[str | None]) -> Naming:
    names: list[str | None] = []
    for number, text in enumerate(descriptions, start=1):
        name = (worded(text)[0] if text else None) or text or f"page{number}"
        names.append(name if name != "alpha" else text)
    return Naming(_unique(names), tuple(descriptions))


def _bare(descriptions: Sequence[str | None]) -> list[float | None]:
    """Wavelengths of bands whose descriptions are nothing but rising numbers, as ENVI headers have them."""
    nothing: list[float | None] = [None] * len(descriptions)
    found = [nanometres(text) if text else None for text in descriptions]
    known = [nm for nm in found if nm is not None]
    if len(known) < max(3, len(found)) or any(one >= two for one, two in pairwise(known)):
        return nothing
    return found


def choose(naming: Naming, text: str, source: str) -> list[tuple[str, int]]:
    """Names and file indices (0-based) of the bands in a user's list, in its order.

    text : names, descriptions or numbers from 1 (`red,green,nir`, `3,2,1`), or which number a colour has
        (`red=3,green=2,blue=1`).
    source : the file, for the message.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise RasterError(f"{source}: no band in '{text}'; name some of {listed(naming.names)}.")
    chosen = []
    for part in parts:
        role, _, place = part.rpartition("=")
        index = _index(naming, place.strip(), source)
        name = (described(role) or role.strip().lower()) if role else naming.names[index]
        chosen.append((name, index))
    if all(part.isdecimal() for part in parts) and len(parts) == 3:
        anonymous = all(re.fullmatch(r"(?:band|page)\d+", naming.names[index]) for _, index in chosen)
        if naming.guessed or anonymous:  # three numbers mean red, green and blue in image viewers
            chosen = [(name, index) for name, (_, index) in zip(RGB, chosen, strict=True)]
    names = [name for name, _ in chosen]
    if len(set(names)) < len(names):
        raise RasterError(f"{source}: a band is named twice in '{text}'.")
    return chosen


def _index(naming: Naming, part: str, source: str) -> int:
    count = len(naming.names)
    if part.isdecimal():
        if not 1 <= int(part) <= count:
            raise RasterError(f"{source} has {count} band{'s' * (count > 1)}; there is no band {part}.")
        return int(part) - 1
    for name in (part.lower(), described(part)):
        if name in naming.names and name is not None:
            return naming.names.index(name)
    texts = [text.casefold() if text else None for text in naming.descriptions]
    if part.casefold() in texts:
        return texts.index(part.casefold())
    near = get_close_matches(part.lower(), naming.names, n=1)
    hint = f"; did you mean {near[0]}?" if near else "."
    raise RasterError(f"{source} has no band '{part}'{hint} It has {listed(naming.names)}.")


def listed(names: Sequence[str]) -> str:
    """Names of bands, of many the first and the last."""
    return ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:3])} to {names[-1]}"


def _unique(names: Sequence[str | None]) -> tuple[str, ...]:
    seen: set[str] = set()
    out = []
    for number, name in enumerate(names, start=1):
        if name is None or name in seen:
            name = f"band{number}"
        seen.add(name)
        out.append(name)
    return tuple(out)


def stand_ins(wanted: Sequence[str], have: Sequence[str]) -> tuple[str, ...] | None:
    """Which band to read for each band that is wanted; None where one is missing.

    The only band of a grey picture stands for red, green and blue, as every viewer shows it; so does one that
    has a name of its own, such as a microscope's channel.
    """
    if all(name in have for name in wanted):
        return tuple(wanted)
    is_grey = len(have) == 1 and (have[0] == "grey" or not is_colour(have[0]))
    if is_grey and all(name in (*RGB, "grey") for name in wanted):
        return (have[0],) * len(wanted)
    return None


def lacking(wanted: Sequence[str], have: Sequence[str]) -> str:
    """That bands are missing, as the end of a sentence, with what to say where some have no known names.

    wanted : the bands that are needed; `have` : those that a raster has.
    """
    there = listed(have)
    missing = [name for name in wanted if name not in have]
    strangers = [name for name in have if not is_colour(name)]
    places = [re.sub(r"^(?:band|page)(?=\d+$)", "", name) for name in strangers]
    if len(strangers) < len(missing):
        return f"has {there}."
    numbers = dict(zip(missing, places, strict=False))
    said = ",".join(f"{name}={numbers[name]}" if name in numbers else name for name in wanted)
    where = "" if len(missing) == len(have) == len(wanted) else ", with the numbers that they have"
    one = ""
    if not strangers[0].startswith("band") and all(name in (*RGB, "grey") for name in wanted):
        one = f", or take one of them as grey, for example {places[0]}"
    return f"has {there}: say which is which, for example {said}{where}{one}."


def is_colour(name: str) -> bool:
    """Whether a band's name says which light it holds, and isn't a number or a name of the file's own."""
    return name.rstrip("0123456789") in _COLOURS or bool(re.fullmatch(r"\d+nm", name))
