"""Text on pictures, in letters that the font has and no wider than its room."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from PIL import ImageFont

_ASCII = str.maketrans(
    {"–": "-", "—": "-", "×": "x", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "ß": "ss", "’": "'"}
)


def text_px(side_px: int) -> int:
    """Size of ordinary text on a picture with this longer side."""
    return max(13, min(24, round(side_px / 85)))


@lru_cache(maxsize=16)
def font_of(px: int) -> ImageFont.FreeTypeFont:
    """The font at a size."""
    font = ImageFont.load_default(px)
    assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow's wheels are built with FreeType
    return font


def fitted(text: str, font: ImageFont.FreeTypeFont, room_px: float) -> str:
    """The text, cut short where it is wider than `room_px`, in letters that the font has."""
    # The font that comes with Pillow is plain ASCII: letters lose their accents.
    plain = unicodedata.normalize("NFKD", text.translate(_ASCII))
    plain = "".join(c if c.isascii() else "?" for c in plain if not unicodedata.combining(c))
    if font.getlength(plain) <= room_px:
        return plain
    while plain and font.getlength(plain + "...") > room_px:
        plain = plain[:-1]
    return plain + "..."


def distance_in_words(metres: float) -> str:
    """A length with the unit that suits it."""
    for unit, size in (("km", 1e3), ("m", 1.0), ("cm", 1e-2), ("mm", 1e-3)):
        if metres >= size * 0.999:
            return f"{metres / size:.4g} {unit}"
    return f"{metres / 1e-6:.4g} um"
