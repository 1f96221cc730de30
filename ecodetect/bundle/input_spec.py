"""How a model sees a raster: which bands, on which grid, and how values become the network's input.

Training, scanning, classifying, checking and explaining all make an `InputSpec` here, so that what a model
has learned from is what it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ecodetect.bundle import values
from ecodetect.bundle.card import COARSEST, Scaling
from ecodetect.bundle.values import EIGHT_BIT, ValueUnit, mapped, stretched, unit_of
from ecodetect.errors import GridError, UserError
from ecodetect.grid import Grid
from ecodetect.raster.bands import lacking, stand_ins

# A raster whose pixels are this near to the GSD asked for is read as it is. Rasters of one survey differ so
# much on the ground (UTM's scale); making them equal would cost sharpness.
NEARLY = 0.02


class InputCard(values.ValuesCard, Protocol):
    """The part of a card, or of what is to become one, that says how rasters are seen."""

    @property
    def gsd(self) -> float | None: ...

    @property
    def gsd_m(self) -> float | None: ...

    @property
    def fill(self) -> float: ...


class Shown(Protocol):
    """A raster, open or not."""

    @property
    def name(self) -> str: ...

    @property
    def bands(self) -> tuple[str, ...]: ...

    @property
    def grid(self) -> Grid: ...


@dataclass(frozen=True, eq=False, slots=True)
class InputSpec:
    """How a model sees one raster.

    bands : of the raster, to be read for those of the model, in its order; one may stand for several.
    grid : that is read; the raster's own, or made of it by `Grid.resampled` or `Grid.reduced`.
    scaling : from the raster's values to the network's input; of mode "survey" where percentiles of the
        raster are still to be taken.
    fill : network input where there are no data.
    """

    bands: tuple[str, ...]
    grid: Grid
    scaling: Scaling
    fill: float

    @property
    def distinct(self) -> tuple[str, ...]:
        """The bands, each once: what is to be decoded."""
        return tuple(dict.fromkeys(self.bands))


def input_spec(
    seen: InputCard,
    raster: Shown,
    unit: ValueUnit | None = None,
    *,
    is_stated: bool = False,
    widened: float = 1.0,
) -> InputSpec:
    """How a model sees a raster.

    unit : of the raster's values; None: not known, so they are taken as they are.
    is_stated : whether a user says so, which takes the place of percentiles too.
    widened : how many of the model's own pixels a pixel is to be wide.
    Raises UserError where the raster lacks a band, or its GSD is needed and unknown.
    """
    bands = stand_ins(seen.bands, raster.bands)
    if bands is None:
        raise UserError(
            f"Bands {', '.join(seen.bands)} are needed; {raster.name} {lacking(seen.bands, raster.bands)}",
            parameter="bands",
        )
    gsd_m, own_px = seen.gsd_m, 1.0
    if gsd_m is None:
        own_px = (seen.gsd or 1.0) * widened
    elif raster.grid.gsd is None:
        raise UserError(
            f"{raster.name} has no CRS, so the size of its pixels is unknown, and the model works at"
            f" {gsd_m:g} m; state their size.",
            parameter="gsd",
        )
    else:
        gsd_m *= widened
    scaling = scaling_for(seen, unit, is_stated=is_stated)
    return InputSpec(bands, working_grid(raster.grid, gsd_m, own_px), scaling, seen.fill)


def scaling_for(seen: InputCard, unit: ValueUnit | None, *, is_stated: bool = False) -> Scaling:
    """The model's scaling for values in this unit; see `input_spec`.

    A model that doesn't say what it has learned has a fixed scaling only if it learned from 8 bits.
    """
    if unit is None:
        return seen.scaling
    if seen.scaling.mode == "survey":
        return stretched(seen.scaling, unit) if is_stated else seen.scaling
    learned = unit_of(seen.learned)
    if learned is None:
        return mapped(seen.scaling, unit, EIGHT_BIT) if is_stated else seen.scaling
    return mapped(seen.scaling, unit, learned)


def working_grid(native: Grid, gsd_m: float | None, own_px: float = 1.0) -> Grid:
    """The grid that a raster is read on: its own, if that is within 2 % of the wanted pixel size.

    gsd_m : metres per pixel; None: `own_px` of the raster's pixels along each side.
    Raises GridError where the raster's GSD is needed and unknown, or so unlike what is asked for that there
    would be pixels without end, or none.
    """
    if gsd_m is None:
        _check_step(native, (own_px, own_px), f"{own_px:.3g} of its own")
        return native if abs(own_px - 1) < NEARLY else native.reduced(own_px)
    own: Sequence[float] | None = native.gsd
    if own is not None:
        if all(abs(side / gsd_m - 1) < NEARLY for side in own):
            return native
        _check_step(native, (gsd_m / own[0], gsd_m / own[1]), f"{gsd_m:.3g} m")
    return native.resampled(gsd_m)


def _check_step(native: Grid, step: tuple[float, float], asked: str) -> None:
    """Raise GridError for pixels far finer than the raster's own, or larger than the whole of it.

    step : pixels of the raster that one is wide and high.
    """
    if min(step) * COARSEST < 1:
        raise GridError(
            f"The raster would be read with pixels of {asked}, {1 / min(step):.3g} times finer than it is;"
            f" {COARSEST:g} times is the most."
        )
    if step[0] > native.width and step[1] > native.height:
        raise GridError(f"The raster would be read with pixels of {asked}, and is smaller than one of them.")
