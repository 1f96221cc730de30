"""The unit of a raster's values, by a survey of it and of the rasters beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath

from ecodetect.bundle.input_spec import InputCard
from ecodetect.bundle.values import (
    Choice,
    Measured,
    ValueUnit,
    check_mappable,
    chosen,
    chosen_together,
    is_mapped,
    measured,
    of_type,
)
from ecodetect.cores import core_count
from ecodetect.errors import UserError
from ecodetect.raster.bands import stand_ins
from ecodetect.raster.reading import Raster
from ecodetect.raster.sampling import CELL_PX

# Number of sampled cells: more only if these are empty, as in a raster that is mostly without data.
_CELLS = (64, 1024, 16384)
_ENOUGH = 1000  # pixels
# A row of cells from a file of strips needs 512 whole rows: 20,000 px of RGB fit.
_CACHE_BYTES = 32_000_000


def survey(raster: Raster, bands: Sequence[str], most: int | None = None) -> Measured:
    """The values of a raster's own pixels, on a fixed lattice of the whole.

    bands : in the order of the answer; one may be named several times.
    most : cells at most; None: 64, and more where those hold nothing.
    """
    names, distinct = tuple(bands), tuple(dict.fromkeys(bands))
    with raster.env(cache_bytes=_CACHE_BYTES, threads=core_count()):
        for cells in _CELLS if most is None else (most,):
            samples = (chip.picked(names) for chip in raster.samples(raster.grid, distinct, most=cells))
            found = measured(
                samples,
                raster.dtype,
                value_range=raster.value_range,
                scale=raster.scale,
                fill=raster.undeclared_fill,
            )
            seen = sum(part.shape[1] for part in found.parts)
            if seen >= _ENOUGH or raster.grid.window.area <= cells * CELL_PX**2:
                break
    return found


class Companions:
    """The rasters that one command is given: those of one folder, type and bands share one unit."""

    def __init__(
        self, images: Sequence[str], opened: Callable[[str], Raster], *, is_one_folder: bool = False
    ) -> None:
        """opened : opens one of the images as the command does.

        is_one_folder : they count as one, as pictures in folders by class do: their unit tells no class.
        """
        self._images, self._opened, self._is_one = tuple(images), opened, is_one_folder
        self._known: dict[tuple[object, ...], Choice] = {}

    def choice(self, raster: Raster, bands: Sequence[str], found: Measured) -> Choice:
        """The unit of a raster and those beside it.  found : what its own survey gave."""
        key = (self._folder(raster.path), tuple(bands), *_kind(raster))
        if key not in self._known:
            others = [(each, chosen([each])) for each in self._others(raster, bands)]
            weak = [found, *(each for each, own in others if own.is_shared)]
            self._known[key] = chosen_together(weak, _sure(own for _, own in others))
        return self._known[key]

    def _others(self, raster: Raster, bands: Sequence[str]) -> list[Measured]:
        found = []
        for image in self._images:
            if self._folder(image) != self._folder(raster.path) or image == raster.path:
                continue
            try:
                with self._opened(image) as other:
                    if _kind(other) == _kind(raster):
                        found.append(survey(other, bands))
            except UserError:
                continue  # said when its turn comes
        return found

    def _folder(self, image: str) -> str:
        return "" if self._is_one else _folder(image)


def _folder(path: str) -> str:
    return str(PurePath(path).parent)


def _sure(choices: Iterable[Choice]) -> set[ValueUnit]:
    """The units of those that are 8-bit pictures stretched."""
    return {each.unit for each in choices if each.by == "levels" and each.unit is not None}


def _kind(raster: Raster) -> tuple[object, ...]:
    return (raster.bands, raster.dtype, raster.value_range, raster.scale)


def shared(
    rasters: Sequence[tuple[str, str, tuple[str, ...]]],
    opened: Callable[[int], Raster],
    stated: ValueUnit | None,
    *,
    is_one_folder: bool = False,
) -> list[Choice]:
    """The units of many rasters; those of one folder, with the same type and bands, share one.

    rasters : path, numpy name of the type, and bands to look at, of each.
    opened : opens one by its number.
    is_one_folder : they count as one; see `Companions`.
    """
    found: dict[int, Choice] = {}
    folders: dict[tuple[object, ...], list[tuple[int, Measured, Choice]]] = {}
    for number, (path, dtype, bands) in enumerate(rasters):
        known = Choice(stated, "stated", "as stated") if stated is not None else of_type(dtype)
        if known is None:
            with opened(number) as raster:
                survey_of = survey(raster, bands)
                known = chosen([survey_of])
                key = ("" if is_one_folder else _folder(path), *_kind(raster))
                folders.setdefault(key, []).append((number, survey_of, known))
        found[number] = known
    for members in folders.values():
        weak = {number: each for number, each, own in members if own.is_shared}
        if weak:
            together = chosen_together(list(weak.values()), _sure(own for *_, own in members))
            found |= dict.fromkeys(weak, together)
    return [found[number] for number in range(len(rasters))]


def seen_unit(
    card: InputCard, raster: Raster, *, stated: ValueUnit | None = None, companions: Companions | None = None
) -> tuple[Choice | None, Measured | None]:
    """The unit of a raster's values where a model goes by one, and what was surveyed for it.

    Raises UserError for values that can't be brought to those that the model has learned.
    """
    if stated is None and not is_mapped(card):
        return None, None
    choice, found = choice_of(raster, card.bands, stated=stated, companions=companions)
    if choice is not None:
        check_mappable(raster.name, card, choice)
    return choice, found


def choice_of(
    raster: Raster,
    wanted: Sequence[str],
    *,
    stated: ValueUnit | None = None,
    companions: Companions | None = None,
) -> tuple[Choice | None, Measured | None]:
    """The unit of a raster's values, and what was surveyed for it; None: nothing was.

    wanted : bands of the model.
    stated : what the user says it is.
    No choice is made for a raster that lacks a band.
    """
    bands = stand_ins(wanted, raster.bands)
    if bands is None:
        return None, None
    if stated is not None:
        return Choice(stated, "stated", "as stated"), None
    by_type = of_type(raster.dtype)
    if by_type is not None:
        return by_type, None
    found = survey(raster, bands)
    own = chosen([found])
    if own.is_shared and companions is not None:
        own = companions.choice(raster, bands, found)
    return own, found
