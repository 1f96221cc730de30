"""Lengths and areas as a user states them, in metres or pixels: `3m`, `25px`, `2m2`, `40px`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from ecodetect.errors import UserError

_NUMBER = r"([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)"
_LENGTH = re.compile(_NUMBER + r"\s*(m|px|cm)")
_AREA = re.compile(_NUMBER + r"\s*(m2|m²|px|px2|ha)")


@dataclass(frozen=True, slots=True)
class Length:
    """A length in metres on the ground or in pixels."""

    value: float
    unit: Literal["m", "px"]

    @classmethod
    def parse(cls, text: str, *, name: str = "length") -> Length:
        """Read `3m`, `30cm` or `25px`; raises UserError for anything else."""
        found = _LENGTH.fullmatch(text.strip())
        if found is None:
            raise UserError(f"{name} must be a length with a unit such as 3m or 25px; got '{text}'.")
        value = float(found[1])
        return cls(value / 100, "m") if found[2] == "cm" else cls(value, "m" if found[2] == "m" else "px")

    def pixels(self, gsd: tuple[float, float] | None, *, name: str = "length") -> float:
        """This length in pixels; raises UserError for metres where the ground size of a pixel is unknown."""
        if self.unit == "px":
            return self.value
        if gsd is None:
            raise UserError(f"{name} is {self}, but the raster has no CRS: state --gsd, or give it in px.")
        return self.value / math.sqrt(gsd[0] * gsd[1])

    def __str__(self) -> str:
        return f"{self.value:g}{self.unit}"


@dataclass(frozen=True, slots=True)
class Area:
    """An area in square metres on the ground or in pixels."""

    value: float
    unit: Literal["m2", "px"]

    @classmethod
    def parse(cls, text: str, *, name: str = "area") -> Area:
        """Read `2m2`, `0.1ha` or `40px`; raises UserError for anything else."""
        found = _AREA.fullmatch(text.strip())
        if found is None:
            raise UserError(f"{name} must be an area with a unit such as 2m2 or 40px; got '{text}'.")
        value = float(found[1])
        if found[2] == "ha":
            return cls(value * 10_000, "m2")
        return cls(value, "px" if found[2].startswith("px") else "m2")

    def pixels(self, gsd: tuple[float, float] | None, *, name: str = "area") -> float:
        """This area in pixels; raises UserError for m² where the ground size of a pixel is unknown."""
        if self.unit == "px":
            return self.value
        if gsd is None:
            raise UserError(f"{name} is {self}, but the raster has no CRS: state --gsd, or give it in px.")
        return self.value / (gsd[0] * gsd[1])

    def __str__(self) -> str:
        return f"{self.value:g}{self.unit}"
