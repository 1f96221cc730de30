"""What a text, a wavelength or a satellite's number means as a band: `near infrared`, `668 nm`, `B08`.

`bands` names a file's bands with it. Nothing here reads files.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

Sensor = Literal["sentinel2", "landsat8", "landsat7"]

_INFRARED = r"(?:infra ?(?:red|rouge|rot|rojo|rosso|rood|vermelho)|infrarrojo|infrarod|infrarotes)"
# Tried in this order: "short wave infrared" isn't near infrared, and "red edge" isn't red. Without accents.
_WORDS: tuple[tuple[str, str], ...] = (
    (
        "swir",
        rf"(?:swir|short ?wave(?: ?infra ?red| ?ir)?|{_INFRARED} (?:de |a |em |d )?"
        rf"(?:ondas? cortas?|ondas? curtas?|ondes courtes)|kurzwelliges {_INFRARED}|kortegolf ?{_INFRARED})",
    ),
    ("mwir", r"(?:mwir|mid ?wave(?: ?infra ?red| ?ir)?)"),
    (
        "thermal",
        rf"(?:lwir|tir|tirs|thermal(?: ?infra ?red| ?ir)?|(?:{_INFRARED} )?(?:termic[oa]|thermique|termal)"
        rf"|thermisch(?:es)?(?: {_INFRARED})?|thermal{_INFRARED})",
    ),
    (
        "red_edge",
        r"(?:vegetation )?(?:red ?edge|vre|borde rojo|borda vermelha|bordo rosso|bord(?:ure)? rouge"
        r"|rote kante)",
    ),
    (
        "nir",
        rf"(?:nir|near ?ir|ir|pir|(?:near ?|proche |nahes |nabij |vicino |naer)?{_INFRARED}"
        r"(?: cercano| proximo| proche| vicino)?)",
    ),
    ("coastal", r"(?:coastal(?: aerosol| blue)?|aerosol|azul costero|azul costeiro|bleu cotier)"),
    (
        "grey",
        r"(?:pan|panchro|panchromatic|gr[ae]y|gr[ae]y ?scale|pancromatic[oa]|panchromatique|gris|grau"
        r"|grigio)",
    ),
    ("green_i", "green ?i"),  # PlanetScope's second green, at 531 nm
    ("red", "(?:red|rojo|roja|rouge|rot|vermelho|vermelha|rosso|rossa|rood)"),
    ("green", "(?:green|verde|vert|grun|gruen|groen)"),
    ("blue", "(?:blue|azul|bleu|blau|blu|blauw)"),
    ("yellow", "(?:yellow|amarillo|amarelo|jaune|gelb|giallo|geel)"),
    ("alpha", "alpha"),
)
_PATTERNS = tuple((name, re.compile(rf"\b{words} ?(\d)?\b")) for name, words in _WORDS)
_LETTERS = {"r": "red", "g": "green", "b": "blue", "n": "nir", "re": "red_edge", "y": "yellow", "a": "alpha"}
# What the words would read otherwise: Sentinel-2's narrow band, and the names of STAC's catalogues.
_WHOLE = {
    "narrow nir": "nir2", "nir narrow": "nir2", "nir08": "nir", "swir16": "swir", "swir22": "swir2",
    "rededge071": "red_edge", "rededge075": "red_edge2", "rededge078": "red_edge3",
}  # fmt: skip

_NUMBERS: dict[Sensor, dict[str, str]] = {
    "sentinel2": {
        "1": "coastal", "2": "blue", "3": "green", "4": "red", "5": "red_edge", "6": "red_edge2",
        "7": "red_edge3", "8": "nir", "8a": "nir2", "11": "swir", "12": "swir2",
    },
    "landsat8": {  # and 9
        "1": "coastal", "2": "blue", "3": "green", "4": "red", "5": "nir", "6": "swir", "7": "swir2",
        "8": "grey", "10": "thermal", "11": "thermal2",
    },
    "landsat7": {  # and 4, 5
        "1": "blue", "2": "green", "3": "red", "4": "nir", "5": "swir", "6": "thermal", "7": "swir2",
        "8": "grey",
    },
}  # fmt: skip
_SENSORS: tuple[tuple[Sensor, re.Pattern[str]], ...] = (
    ("sentinel2", re.compile(r"sentinel[ _-]?2|(?:^|[^a-z0-9])s2[abc]?[ _-]|msil[12][abc]|hls[._]s30")),
    (
        "landsat8",
        re.compile(r"landsat[ _-]?0?[89]|(?:^|[^a-z0-9])l[co]0?[89][_\d]|\boli\b|oli_tirs|hls[._]l30"),
    ),
    ("landsat7", re.compile(r"landsat[ _-]?0?[457](?!.*mss)|(?:^|[^a-z0-9])l[et]0?[457][_\d]|\betm\b")),
)

# Name, lowest and highest nm, and the nm that the band of this name has in most sensors: of several bands in
# one range the nearest to it gets the name.
_RANGES = (
    ("coastal", 400, 450, 443),
    ("blue", 450, 510, 485),
    ("green", 510, 585, 560),
    ("yellow", 585, 625, 608),
    ("red", 625, 690, 662),
    ("red_edge", 690, 760, 717),
    ("nir", 760, 1000, 842),
    ("swir", 1400, 1800, 1610),
    ("swir2", 2000, 2500, 2190),
    ("mwir", 3000, 5500, 3900),
    ("thermal", 7500, 15000, 10900),
)
_SLACK_NM = 60  # so far from its range a colour is still called by its name by some maker
_UNITS = (
    (r"nm|nanomet(?:er|re)s?", 1.0),
    (r"um|µm|μm|micromet(?:er|re)s?|microns?", 1000.0),
)
_NUMBER = r"\d+(?:[.,]\d+)?"


def described(text: str) -> str | None:
    """The band that a description or a user means (`NIR`, `near infrared`, `rojo`, `668 nm`), or None."""
    name, number_nm = worded(text)
    return name if name is not None or number_nm is None else by_wavelength(number_nm)


def worded(text: str) -> tuple[str | None, float | None]:
    """The band that the words of a text mean, and the wavelength in nm that it states; None for neither."""
    plain = _plain(text)
    number_nm = _stated_nm(text)
    if plain in _LETTERS or plain in _WHOLE:
        return _LETTERS.get(plain) or _WHOLE[plain], None
    if plain.startswith("ms ") and plain[3:] in _LETTERS:  # DJI's multispectral cameras
        return _LETTERS[plain[3:]], None
    found = []
    for name, pattern in _PATTERNS:
        if match := pattern.search(plain):
            number = match[1] if match[1] and int(match[1]) > 1 else ""
            found.append(name + number)
            plain = pattern.sub(" ", plain)
    if len(found) != 1:  # "red - green" is neither
        return None, None if found else number_nm
    if number_nm is None and (bare := re.search(r"\b(\d{3,4})\b", plain)):  # MicaSense's `Blue-444`
        number_nm = _plausible(float(bare[1]))
    return found[0], number_nm


def by_wavelength(nm: float) -> str | None:
    """The band whose range holds a wavelength."""
    return next((name for name, low, high, _ in _RANGES if low <= nm < high), None)


def off_centre(name: str, nm: float) -> float:
    """How far a wavelength is from that of most sensors' band of this name, in nm."""
    return next((abs(nm - usual) for other, _, _, usual in _RANGES if other == name), 0.0)


def is_at_odds(name: str, nm: float) -> bool:
    """Whether a band of this name can't have this wavelength."""
    kind = name.rstrip("0123456789")
    ranges = [(low, high) for other, low, high, _ in _RANGES if other.rstrip("0123456789") == kind]
    return bool(ranges) and not any(low - _SLACK_NM <= nm <= high + _SLACK_NM for low, high in ranges)


def nanometres(text: str, unit: str = "") -> float | None:
    """A wavelength of a file's metadata in nm; None where it is none.

    unit : as the file writes it; without one numbers up to 100 are micrometres.
    """
    if (stated := _stated_nm(f"{text} {unit}")) is not None:
        return stated
    if unit.strip() and unit.strip().lower() not in ("unknown", "none"):
        return None  # wavenumbers, frequencies
    try:
        number = float(text)
    except ValueError:
        return None
    return _plausible(number * 1000 if number < 100 else number)


def numbered(descriptions: Sequence[str | None], sensor: Sensor | None) -> tuple[list[str | None], str]:
    """Bands by the numbers of Sentinel-2 (`B04`, `B8A`) and Landsat (`SR_B4`), and what was assumed for it.

    sensor : the satellite, where the file says it: then plain `B4`, `Band 4` and `4` count too. Else they may
        be mere numbers, and count as Sentinel-2's only beside a `B8A` or `B12`, or with two digits.
    Returns the names and, where another satellite has the same numbers for other bands, the one assumed.
    """
    plain = [_plain(text or "") for text in descriptions]
    if sensor is not None:
        found = [
            re.fullmatch(r"(?:.* )?(?:sr |st |toa )?(?:b|band)? ?0?(\d{1,2}|8a)(?: \d0m)?", text)
            for text in plain
        ]
        return _read(found, sensor), ""
    if any(re.search(r"\bb(0\d|8a|12)\b", text) for text in plain):
        return _read([re.search(r"\bb0?(\d{1,2}|8a)\b", text) for text in plain], "sentinel2"), ""
    landsat = [re.fullmatch(r"(?:.* )?(sr|st) b(\d{1,2})", text) for text in plain]
    have = {f"{match[1]}{match[2]}" for match in landsat if match}
    if not have:
        return [None] * len(plain), ""
    is_old = "st6" in have or (
        have >= {"sr1", "sr3", "sr4", "sr5", "sr7"} and "sr6" not in have and "st10" not in have
    )
    is_sure = bool(have & {"sr6", "st6", "st10"})
    which: Sensor = "landsat7" if is_old else "landsat8"
    names = [_NUMBERS[which].get(match[2]) if match else None for match in landsat]
    return names, "" if is_sure else ("Landsat 4 to 7" if is_old else "Landsat 8 and 9")


def sensor_in(texts: Sequence[str]) -> Sensor | None:
    """The satellite that metadata or a file's name speak of; None where none or several are named."""
    joined = "\n".join(texts).lower()
    found = [sensor for sensor, pattern in _SENSORS if pattern.search(joined)]
    return found[0] if len(found) == 1 else None


def _read(found: Sequence[re.Match[str] | None], sensor: Sensor) -> list[str | None]:
    return [_NUMBERS[sensor].get(match[1]) if match else None for match in found]


def _plain(text: str) -> str:
    """Lower case without accents, words apart: `RedEdge` and `Rot-Kante` are two."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text[:300])
    bare = "".join(c for c in unicodedata.normalize("NFKD", apart) if not unicodedata.combining(c))
    return re.sub(r"[^a-z0-9]+", " ", bare.casefold()).strip()


def _stated_nm(text: str) -> float | None:
    """The wavelength that a text states with its unit, the middle of a range; None for none."""
    text = text[:300].lower()
    for unit, factor in _UNITS:
        match = re.search(
            rf"({_NUMBER})(?:\s*(?:-|–|to)\s*({_NUMBER}))?(?:\s*(?:±|/|\+/-)\s*{_NUMBER})?[\s()\[\]]*(?:{unit})\b",
            text,
        )
        if match:
            first, last = (float((part or match[1]).replace(",", ".")) for part in match.groups())
            return _plausible((first + last) / 2 * factor if last > first else first * factor)
    return None


def _plausible(nm: float) -> float | None:
    return nm if 300 <= nm <= 20_000 else None
