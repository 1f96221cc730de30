"""Naming the bands of a raster, and finding the bands that a user names.

A name is a colour of the spectrum (`red`, `green`, `blue`, `nir`, `red_edge`, `swir`, `thermal`, …), `grey`
for a single band, `alpha` for a mask, or `band1`, `band2`, … where nothing is known. What the file says of a
band in words counts first, then its colour interpretation, then custom, which is told. Nothing here reads
files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from ecodetect.errors import RasterError
from ecodetect.notes import Note

# Tried in this order: "short wave infrared" is no near infrared, and "red edge" no red.
_WORDS: tuple[tuple[str, str], ...] = (
    ("swir", r"(?:swir|short ?wave(?: ?infra ?red| ?ir)?)"),
    ("mwir", r"(?:mwir|mid ?wave(?: ?infra ?red| ?ir)?)"),
    ("thermal", r"(?:lwir|tir|tirs|thermal(?: ?infra ?red| ?ir)?)"),
    ("red_edge", r"(?:vegetation )?(?:red ?edge|vre)"),
    ("nir", r"(?:nir|near ?infra ?red|near ?ir|infra ?red|ir)"),
    ("coastal", r"(?:coastal(?: aerosol| blue)?|aerosol)"),
    ("grey", r"(?:pan|panchromatic|gr[ae]y|gr[ae]yscale)"),
    ("red", "red"),
    ("green", "green"),
    ("blue", "blue"),
    ("yellow", "yellow"),
    ("alpha", "alpha"),
)
_PATTERNS = tuple((name, re.compile(rf"\b{words} ?(\d)?\b")) for name, words in _WORDS)
_LETTERS = {"r": "red", "g": "green", "b": "blue", "n": "nir", "re": "red_edge", "y": "yellow", "a": "alpha"}

_SENTINEL_2 = {
    "1": "coastal", "2": "blue", "3": "green", "4": "red", "5": "red_edge", "6": "red_edge2",
    "7": "red_edge3", "8": "nir", "8a": "nir2", "11": "swir", "12": "swir2",
}  # fmt: skip
_LANDSAT_8 = {
    "1": "coastal", "2": "blue", "3": "green", "4": "red", "5": "nir", "6": "swir", "7": "swir2",
    "10": "thermal",
}  # fmt: skip

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
) -> Naming:
    """Names for the bands of a file.

    descriptions, interpretations : of each band, as the file states them.
    is_mask : whether the values of a band (0-based) are those of a mask: 0 and one other value; None: nothing
        but 0 was seen. Asked only of a band that is flagged as alpha, or that follows red, green and blue
        without a name.
    """
    count = len(interpretations)
    notes = []
    guessed = False
    codes = _codes(descriptions)
    names: list[str | None] = []
    for text, code, interpretation in zip(descriptions, codes, interpretations, strict=True):
        names.append((text and described(text)) or code or _INTERPRETATIONS.get(interpretation))
    for index, name in enumerate(names):
        if name == "alpha" and (count == 1 or is_mask(index) is False):
            # Aerial images with near infrared as fourth band are often flagged so by mistake.
            names[index] = "nir" if tuple(names[:index]) == RGB else None
            text = (
                f"band {index + 1} is flagged as alpha, but its values are not those of a mask: it is taken "
                f"as {names[index] or 'data'}."
            )
            notes.append(Note("alpha-is-data", text, kind="choice"))
    data = [index for index, name in enumerate(names) if name != "alpha"]
    unnamed = [index for index in data if names[index] is None]
    if len(data) == 1 and unnamed:
        names[data[0]] = "grey"
    elif unnamed == data == [0, 1, 2] and dtype in ("uint8", "uint16"):
        names[:3] = RGB
        guessed = True
        text = "the three bands have no names; they are taken as red, green and blue."
        notes.append(Note("bands-guessed", text, kind="choice"))
    elif data == [0, 1, 2, 3] and tuple(names[:3]) == RGB and unnamed == [3] and dtype in ("uint8", "uint16"):
        names[3] = "alpha" if "alpha" not in names and is_mask(3) else "nir"
        what = "a mask, as it holds one value beside 0" if names[3] == "alpha" else "near infrared (nir)"
        notes.append(Note("bands-guessed", f"band 4 has no name; it is taken as {what}.", kind="choice"))
    return Naming(_unique(names), tuple(descriptions), guessed, tuple(notes))


def described(text: str) -> str | None:
    """The band that a description or a user means (`NIR`, `near infrared`, `band 4 - nir`, `N`), or None."""
    plain = re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()
    if plain in _LETTERS:
        return _LETTERS[plain]
    found = []
    for name, pattern in _PATTERNS:
        if match := pattern.search(plain):
            number = match[1] if match[1] and int(match[1]) > 1 else ""
            found.append(name + number)
            plain = pattern.sub(" ", plain)
    return found[0] if len(found) == 1 else None  # "red - green" is neither


def choose(naming: Naming, text: str, source: str) -> list[tuple[str, int]]:
    """Names and file indices (0-based) of the bands in a user's list, in its order.

    text : names, descriptions or numbers from 1 (`red,green,nir`, `3,2,1`), or which number a colour has
        (`red=3,green=2,blue=1`).
    source : the file, for the message.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise RasterError(f"{source}: no band in '{text}'; name some of {_listed(naming)}.")
    chosen = []
    for part in parts:
        role, _, place = part.rpartition("=")
        index = _index(naming, place.strip(), source)
        name = (described(role) or role.strip().lower()) if role else naming.names[index]
        chosen.append((name, index))
    if all(part.isdecimal() for part in parts) and len(parts) == 3:
        anonymous = all(naming.names[index].startswith("band") for _, index in chosen)
        if naming.guessed or anonymous:  # three numbers mean red, green and blue to whoever shows images
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
    raise RasterError(f"{source} has no band '{part}'{hint} It has {_listed(naming)}.")


def _listed(naming: Naming) -> str:
    names = naming.names
    return ", ".join(names) if len(names) <= 12 else f"{names[0]} to {names[-1]}"


def _codes(descriptions: Sequence[str | None]) -> list[str | None]:
    """Bands by the codes of Sentinel-2 (`B04`, `B8A`) and Landsat 8 and 9 (`SR_B4`).

    Plain `B1`, `B2`, … may be mere numbers: they count as Sentinel-2 only beside a `B8A` or with two digits.
    """
    plain = [re.sub(r"[^a-z0-9]+", " ", (text or "").lower()).strip() for text in descriptions]
    if any(re.fullmatch(r"b(0\d|8a)", text) for text in plain):
        found = [re.fullmatch(r"b0?(\d{1,2}|8a)", text) for text in plain]
        return [_SENTINEL_2.get(match[1]) if match else None for match in found]
    landsat = [re.fullmatch(r"(?:sr|st) b(\d{1,2})", text) for text in plain]
    return [_LANDSAT_8.get(match[1]) if match else None for match in landsat]


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

    The only band of a grey picture stands for red, green and blue, as every viewer shows it.
    """
    if all(name in have for name in wanted):
        return tuple(wanted)
    if tuple(have) == ("grey",) and all(name in (*RGB, "grey") for name in wanted):
        return ("grey",) * len(wanted)
    return None
