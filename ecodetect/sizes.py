"""Lengths and areas as a user states them, in metres or pixels: `3m`, `25px`, `2m2`, `40px`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from ecodetect.errors import UserError

T = TypeVar("T", bound="_Size")

_NUMBER = r"([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)"


@dataclass(frozen=True, slots=True)
class _Size:
    """A number with its unit: one on the ground, or pixels ("px")."""

    value: float
    unit: str

    _UNITS: ClassVar[Mapping[str, tuple[str, int, int]]]  # as written: unit, times, divided by
    _KIND: ClassVar[str]  # in messages, with an example

    @classmethod
    def parse(cls: type[T], text: str, *, name: str = "The size") -> T:
        """Read a number with a unit; raises UserError for anything else.  name : of what it is the size."""
        found = re.fullmatch(rf"{_NUMBER}\s*({'|'.join(cls._UNITS)})", text.strip())
        if found is None:
            raise UserError(f"{name} must be {cls._KIND}; got '{text}'.")
        unit, times, by = cls._UNITS[found[2]]
        return cls(float(found[1]) * times / by, unit)

    def pixels(self, gsd: tuple[float, float] | None, *, name: str = "The size") -> float:
        """This size in pixels; raises UserError for one on the ground where that of a pixel is unknown.

        gsd : metres per pixel along x and y.
        """
        if self.unit == "px":
            return self.value
        if gsd is None:
            raise UserError(
                f"{name} is {self}, but the raster has no CRS: state its pixel size, or give it in px.",
                parameter="gsd",
            )
        return self.value / self._of_a_pixel(gsd[0] * gsd[1])

    @staticmethod
    def _of_a_pixel(area_m2: float) -> float:
        """The same of one pixel."""
        raise NotImplementedError

    def __str__(self) -> str:
        return f"{self.value:g}{self.unit}"


class Length(_Size):
    """A length in metres on the ground ("m") or in pixels ("px"): `3m`, `30cm`, `25px`."""

    __slots__ = ()
    _UNITS: ClassVar = {"m": ("m", 1, 1), "px": ("px", 1, 1), "cm": ("m", 1, 100)}
    _KIND = "a length with a unit such as 3m or 25px"

    @staticmethod
    def _of_a_pixel(area_m2: float) -> float:
        return math.sqrt(area_m2)


class Area(_Size):
    """An area in square metres on the ground ("m2") or in pixels ("px"): `2m2`, `0.1ha`, `40px`."""

    __slots__ = ()
    _UNITS: ClassVar = {
        "m2": ("m2", 1, 1), "m²": ("m2", 1, 1), "ha": ("m2", 10_000, 1),
        "px": ("px", 1, 1), "px2": ("px", 1, 1),
    }  # fmt: skip
    _KIND = "an area with a unit such as 2m2 or 40px"

    @staticmethod
    def _of_a_pixel(area_m2: float) -> float:
        return area_m2
