"""What pixel values mean: the unit of a raster, and whether its values are like those a model has learned.

The same scene comes as 8 bit, 12 bit, reflectance and more. A model with a fixed scaling has learned one of
these units; a raster in another is mapped to it linearly, from black to black and from white to white. Which
unit a raster has is told by, in this order: what the user states; its type; its tags (NBITS, scale and
offset); its levels, if it is an 8-bit picture stretched to another unit; and else the smallest unit that
holds all its values but the highest 0.1 %. Values come from a survey of the whole raster on its fixed
lattice; no histogram is matched.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ecodetect.bundle.card import PERCENTILES, LearnedValues, Scaling
from ecodetect.chip import Chip
from ecodetect.errors import UserError
from ecodetect.grid import Floats
from ecodetect.notes import Note

_VALUES_PER_CHIP = 2**14
_COMPARED = 2**17  # pixels whose quartiles are taken: enough for them to within a thousandth of the range
_LEAST_VALUES = 500  # fewer say nothing of a piece of ground
TOP = 99.9  # percentile below which a raster's values lie; what is above are glints and hot pixels
_BULK = 95.0
# Reflectance seldom exceeds 1 by much; counts of a camera begin far above.
_MOST_REFLECTANCE, _STRETCHED = 8.0, 0.4
_TOO_DARK = 0.003  # two of 255 grey levels of the smallest unit: nothing can be told of such values
_ENOUGH_LEVELS = 16
_NODATA_LIKE = (-9999.0, -99999.0, -999.0, -32768.0, 0.0)
_HUGE = 1e9


class ValuesCard(Protocol):
    """The part of a card that says which values a model has learned, and how it scales them."""

    @property
    def name(self) -> str: ...

    @property
    def bands(self) -> tuple[str, ...]: ...

    @property
    def scaling(self) -> Scaling: ...

    @property
    def learned(self) -> LearnedValues | None: ...


@dataclass(frozen=True, slots=True)
class ValueUnit:
    """What counts as black and as white in a raster's numbers."""

    low: float
    high: float

    def __str__(self) -> str:
        bits = math.log2(self.high + 1) if self.high > 0 else 0.0
        text = f"{self.low:,.6g} to {self.high:,.6g}"
        return f"{bits:.0f} bit ({text})" if not self.low and bits >= 2 and bits.is_integer() else text

    @classmethod
    def parse(cls, text: str) -> ValueUnit:
        """`LOW:HIGH`; raises UserError for anything else."""
        low, _, high = text.partition(":")
        try:
            unit = cls(float(low), float(high))
        except ValueError:
            raise UserError(
                f"Black and white are given as LOW:HIGH, such as 0:4095; got '{text}'.", parameter="values"
            ) from None
        if not (math.isfinite(unit.low) and math.isfinite(unit.high) and unit.low < unit.high):
            raise UserError(
                f"Black must be a lower value than white in LOW:HIGH; got '{text}'.", parameter="values"
            )
        return unit


EIGHT_BIT = ValueUnit(0.0, 255.0)
SCALED_REFLECTANCE = ValueUnit(0.0, 10_000.0)
COUNTS = (
    EIGHT_BIT, ValueUnit(0.0, 1023.0), ValueUnit(0.0, 4095.0), SCALED_REFLECTANCE, ValueUnit(0.0, 16383.0),
    ValueUnit(0.0, 65535.0),
)  # fmt: skip
REFLECTANCE, STRETCHED_REFLECTANCE = ValueUnit(0.0, 1.0), ValueUnit(0.0, _STRETCHED)
UNITS = (STRETCHED_REFLECTANCE, REFLECTANCE, *COUNTS)


@dataclass(frozen=True, eq=False, slots=True)
class Measured:
    """What a survey found of a raster's values.

    dtype : numpy name of its pixels.
    bits : how many of its type's it uses, as its tags say; None: they don't.
    scale, offset : what its tags say that values are to be multiplied with and added to.
    bands : that were looked at.
    parts : some of the valid pixels of each piece of ground, (B, n); none where nothing valid was seen.
    is_blank : there are valid pixels, and all hold a value that stands for nothing.
    """

    dtype: str
    bits: int | None
    scale: float
    offset: float
    bands: tuple[str, ...]
    parts: tuple[Floats, ...]
    is_blank: bool = False

    @property
    def values(self) -> Floats:
        """All of them, (B, N)."""
        return np.concatenate([np.empty((len(self.bands), 0)), *self.parts], axis=1)

    @property
    def top(self) -> float:
        """What all values but the highest lie below, of the brightest band; NaN where there are none."""
        return self._percentile(TOP)

    @property
    def bulk(self) -> float:
        """The same of nearly all values."""
        return self._percentile(_BULK)

    @property
    def bottom(self) -> float:
        """The fifth percentile of the darkest band."""
        values = self.values
        return float(np.percentile(values, 5, axis=1).min()) if values.size else math.nan

    def _percentile(self, share: float) -> float:
        values = self.values
        return float(np.percentile(values, share, axis=1).max()) if values.size else math.nan


def measured(
    samples: Iterable[Chip],
    dtype: str,
    *,
    value_range: tuple[float, float] | None = None,
    scale: tuple[float, float] = (1.0, 0.0),
    fill: float | None = None,
) -> Measured:
    """What a survey finds; see `Raster.samples`.

    value_range : lowest and highest value that the raster's type, or its number of bits, can hold.
    scale : what the file says that values are to be multiplied with and added to.
    fill : value that fills the raster from its edge inwards, undeclared.
    Pixels that have this, or an extreme or common fill value, in all bands are left out: they are fill that
    undeclared, or saturated, and mean nothing.
    """
    parts = []
    bands: tuple[str, ...] = ()
    is_any = False
    for chip in samples:
        bands = chip.bands
        pixels = chip.pixels.reshape(len(bands), -1)
        if chip.valid is not None:
            pixels = pixels[:, chip.valid.ravel()]
        step = max(1, pixels.shape[1] // _VALUES_PER_CHIP) | 1  # odd: not always the same columns
        some = pixels[:, ::step].astype(np.float64)
        some = some[:, np.isfinite(some).all(axis=0)]
        is_any |= some.shape[1] > 0
        kept = some[:, ~_is_fill(some, dtype, fill)]
        if kept.shape[1]:
            parts.append(kept)
    kind = np.dtype(dtype)
    bits = None
    if kind.kind == "u" and value_range is not None and value_range[1] < np.iinfo(kind).max:
        bits = int(value_range[1] + 1).bit_length() - 1
    return Measured(dtype, bits, *scale, bands, tuple(parts), is_any and not parts)


def _is_fill(values: Floats, dtype: str, fill: float | None) -> NDArray[np.bool_]:
    """Which pixels (B, n) hold in all bands one value that stands for nothing."""
    kind = np.dtype(dtype)
    first = values[0]
    fills = [*_NODATA_LIKE, *([] if fill is None else [fill])]
    if kind.kind in "iu":
        fills += [float(np.iinfo(kind).min), float(np.iinfo(kind).max)]
    is_fill = np.isin(first, fills) | (np.abs(first) >= _HUGE)
    return np.asarray(is_fill & (values == first).all(axis=0), np.bool_)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which unit a raster has.

    unit : None: no value was seen, or they are of none that we know.
    by : how it was determined.
    evidence : that in words, for a sentence about the raster.
    is_strange : there are values, and they are of no unit.
    """

    unit: ValueUnit | None
    by: Literal["stated", "type", "tags", "levels", "survey"]
    evidence: str
    is_strange: bool = False

    @property
    def is_shared(self) -> bool:
        """Whether other rasters of the folder could say more than this one does alone."""
        return self.by == "survey"


def of_type(dtype: str) -> Choice | None:
    """The unit of a type that has only one; None: its values decide."""
    return Choice(EIGHT_BIT, "type", dtype) if dtype == "uint8" else None


def chosen(rasters: Sequence[Measured]) -> Choice:
    """The unit of rasters that have one: of one folder, with the same type and bands.

    The first one's tags and levels count; of values those of all.
    """
    first = rasters[0]
    by_type = of_type(first.dtype)
    if by_type is not None:
        return by_type
    if first.bits is not None and first.bits >= 8:
        return Choice(ValueUnit(0.0, 2.0**first.bits - 1), "tags", f"NBITS is {first.bits}")
    tops = [each.top for each in rasters if not math.isnan(each.top)]
    if not tops:
        return Choice(None, "survey", f"{first.dtype}, without a valid pixel")
    levels = _by_levels(first)
    if levels is not None:
        return levels
    top, bulk = max(tops), max(each.bulk for each in rasters if not math.isnan(each.bulk))
    bottom = min(each.bottom for each in rasters if not math.isnan(each.bottom))
    if (first.scale, first.offset) != (1.0, 0.0):
        found = _by_scale(first, top)
        if found is not None:
            return found
    text = f"{first.dtype}, {TOP:g} % of the values up to {top:,.5g}"
    if bottom < -0.05 * abs(top):
        return Choice(None, "survey", f"{first.dtype}, values from {bottom:,.4g} to {top:,.4g}", True)
    unit = _by_values(first.dtype, top, bulk)
    return Choice(unit, "survey", text, unit is None)


def chosen_together(weak: Sequence[Measured], sure: Collection[ValueUnit]) -> Choice:
    """The unit of rasters of one folder, with the same type and bands, whose own values leave it open.

    sure : units of those beside them that are 8-bit pictures stretched; if it is one, these have it too.
    """
    choice, beside = chosen(weak), len(weak) - 1
    if len(sure) == 1 and choice.unit is not None:
        (unit,) = sure
        if choice.unit.high <= unit.high:
            return replace(choice, unit=unit, evidence=f"{choice.evidence}, and beside it by their levels")
    return replace(choice, evidence=f"{choice.evidence}, with {beside:,} beside it") if beside else choice


def _by_values(dtype: str, top: float, bulk: float) -> ValueUnit | None:
    """The smallest unit that holds the values; None where none does."""
    if top < _TOO_DARK or top > COUNTS[-1].high:
        return None
    is_whole = np.dtype(dtype).kind in "iu"
    if not is_whole and top <= 1.05 * _STRETCHED:
        return STRETCHED_REFLECTANCE
    if not is_whole and top <= _MOST_REFLECTANCE:
        return REFLECTANCE
    # Clouds and roofs exceed a reflectance of 1; but then most of the raster doesn't.
    full = SCALED_REFLECTANCE.high
    if full < top <= 1.7 * full and bulk <= full:
        return SCALED_REFLECTANCE
    return next(unit for unit in COUNTS if top <= unit.high)


def _by_scale(first: Measured, top: float) -> Choice | None:
    """The unit that scale and offset make a reflectance; None where they make something else."""
    high = first.scale * top + first.offset
    if first.scale <= 0 or not _TOO_DARK <= high <= _MOST_REFLECTANCE:
        return None
    white = _STRETCHED if high <= 1.05 * _STRETCHED else 1.0
    low, full = ((end - first.offset) / first.scale for end in (0.0, white))
    unit = ValueUnit(float(f"{low:.6g}"), float(f"{full:.6g}"))
    return Choice(unit, "tags", f"scale {first.scale:g} and offset {first.offset:g} make it reflectance")


def _by_levels(first: Measured) -> Choice | None:
    """The unit of an 8-bit picture that was stretched: at most 256 levels, evenly apart; None for others."""
    values = first.values
    levels = np.unique(values)
    if not _ENOUGH_LEVELS <= len(levels) <= 256 or levels[0] < 0:
        return None
    step = float(np.diff(levels).min())
    is_whole = np.dtype(first.dtype).kind in "iu" or bool((levels == np.round(levels)).all())
    for unit in UNITS:
        exact = unit.high / 255
        # Shifted by bits, 255 becomes 4080, and cut off or rounded steps differ by one.
        shifted = 2.0 ** round(math.log2(exact)) if is_whole else exact
        slack = 1.0 if is_whole else 1e-3 * exact
        if abs(step - exact) > slack + 0.01 * exact or unit == EIGHT_BIT:
            continue
        for each in (exact, shifted):
            off = np.abs(levels - np.round(levels / each) * each)
            if levels[-1] <= unit.high * 1.001 and bool((off <= slack).all()) and each > 2 * slack:
                return Choice(unit, "levels", f"{first.dtype} with the levels of an 8-bit picture")
    return None


# -- mapping -----------------------------------------------------------------------------------------------


def mapped(scaling: Scaling, unit: ValueUnit, learned: ValueUnit) -> Scaling:
    """A fixed scaling of values in `learned` for a raster in `unit`; itself where they are the same."""
    if unit == learned:
        return scaling
    ratio = (learned.high - learned.low) / (unit.high - unit.low)
    offset = tuple(unit.low + (value - learned.low) / ratio for value in scaling.offset)
    return replace(scaling, offset=offset, span=tuple(value / ratio for value in scaling.span))


def stretched(scaling: Scaling, unit: ValueUnit) -> Scaling:
    """A scaling of mode "survey" with what a user states in place of the percentiles."""
    wide = unit.high - unit.low
    bands = max(len(scaling.offset), 1)
    return replace(
        scaling,
        mode="fixed",
        offset=tuple(unit.low + value * wide for value in scaling.offset or (0.0,) * bands),
        span=tuple(value * wide for value in scaling.span or (1.0,) * bands),
    )


def unit_of(learned: LearnedValues | None) -> ValueUnit | None:
    """The unit of the values that a model has learned; None where it doesn't say."""
    if learned is None or learned.low is None or learned.high is None:
        return None
    return ValueUnit(learned.low, learned.high)


# -- what a model has learned ------------------------------------------------------------------------------


def learned_from(
    rasters: Sequence[tuple[Measured, ValueUnit | None]],
    bands: Sequence[str],
    unit: ValueUnit | None,
    scaling: Scaling,
) -> LearnedValues:
    """What the card says of the values that a model has learned.

    rasters : what surveys found, with the bands in the card's order, and the unit of each.
    unit : that they are mapped to; None: they aren't mapped.
    """
    pieces = [
        part
        for found, own in rasters
        for part in _alike(found, own, unit, scaling)
        if part.shape[1] >= _LEAST_VALUES
    ]
    quantiles: dict[str, tuple[float, ...]] = {}
    least: dict[str, tuple[float, ...]] = {}
    most: dict[str, tuple[float, ...]] = {}
    contrast: dict[str, tuple[float, float]] = {}
    colour: dict[str, tuple[float, float]] = {}
    if pieces:
        each = np.stack([np.percentile(part, PERCENTILES, axis=1).T for part in pieces])  # (P, B, Q)
        whole = np.percentile(np.concatenate(pieces, axis=1), PERCENTILES, axis=1).T
        low, high = np.percentile(each, 1, axis=0), np.percentile(each, 99, axis=0)
        spread = np.percentile(each[:, :, -2] - each[:, :, 1], (1, 99), axis=0)
        hues = np.percentile(np.stack([_hue(part) for part in pieces]), (1, 99), axis=0)
        for row, name in enumerate(bands):
            quantiles[name], least[name], most[name] = _short(whole[row]), _short(low[row]), _short(high[row])
            contrast[name] = (_digits(spread[0, row]), _digits(spread[1, row]))
            colour[name] = (_digits(hues[0, row]), _digits(hues[1, row]))
    return LearnedValues(
        dtypes=tuple(sorted({found.dtype for found, _ in rasters})),
        low=None if unit is None else unit.low,
        high=None if unit is None else unit.high,
        quantiles=quantiles,
        least=least,
        most=most,
        contrast=contrast,
        colour=colour,
    )


def _hue(values: Floats) -> Floats:
    """The medians of the differences of bands (B, n) from the mean of all, (B,)."""
    return np.asarray(np.median(values - values.mean(axis=0), axis=1), np.float64)


def _short(values: Floats) -> tuple[float, ...]:
    return tuple(_digits(value) for value in values)


def _digits(value: float) -> float:
    return float(f"{value:.4g}")


def _alike(found: Measured, own: ValueUnit | None, unit: ValueUnit | None, scaling: Scaling) -> list[Floats]:
    """The values of a raster's pieces as a model compares them, (B, n) each."""
    if scaling.mode == "survey":
        if not found.parts:
            return []
        low, high = np.percentile(found.values, [scaling.low, scaling.high])
        return [(part - low) / ((high - low) or 1.0) for part in found.parts]
    if own is None or unit is None or own == unit:
        return list(found.parts)
    ratio = (unit.high - unit.low) / (own.high - own.low)
    return [unit.low + (part - own.low) * ratio for part in found.parts]


# -- likeness ----------------------------------------------------------------------------------------------

# Measured on left-out ground of the same kind; see docs/values.md.
_SHIFT = 0.15  # of the learned spread, by which quartiles may lie beyond those of all pieces learned from
_FLAT = 0.5  # of the least learned contrast
_LEAST_LEVELS = 8  # blood cells are found with 12, half of them with 5; left-out ground has 23 and more
_HUE = 0.1  # of the learned spread, by which a band may differ more from the others than in all pieces


def unlike(
    learned: LearnedValues, bands: Sequence[str], found: Measured, own: ValueUnit | None, scaling: Scaling
) -> str | None:
    """What of a raster's values is unlike those that a model has learned, as a sentence; None: nothing.

    bands : of the card, in its order.
    found : what a survey found, with a band for each of these.
    """
    parts = _alike(found, own, unit_of(learned), scaling)
    if not parts or not learned.quantiles:
        return None
    values = np.concatenate(parts, axis=1)
    if values.shape[1] < _LEAST_VALUES:
        return None
    values = values[:, :: max(1, values.shape[1] // _COMPARED) | 1]
    worst: tuple[float, str] | None = None
    hue = _hue(values)
    for row, name in enumerate(bands):
        mine = np.percentile(values[row], PERCENTILES)
        text = _constant(name, mine, learned.quantiles[name])
        if text:
            return text
        found_worst = (
            _shifted(name, mine, learned) or _flat(name, mine, learned) or _tinted(name, hue[row], learned)
        )
        if found_worst is not None and (worst is None or found_worst[0] > worst[0]):
            worst = found_worst
    return _coarse(found, scaling) or (None if worst is None else worst[1])


def _coarse(found: Measured, scaling: Scaling) -> str | None:
    """That percentiles brighten a raster so dark, or so flat, that little is left between its levels."""
    if scaling.mode != "survey" or np.dtype(found.dtype).kind not in "iu":
        return None
    values = found.values
    low, high = np.percentile(values, [scaling.low, scaling.high])
    levels = len(np.unique(values[(values >= low) & (values <= high)]))
    if levels >= _LEAST_LEVELS:
        return None
    return f"from black ({low:.3g}) to white ({high:.3g}) it has only {levels} levels"


def _constant(name: str, mine: Floats, known: Sequence[float]) -> str | None:
    if mine[-1] - mine[0] <= 0.01 * (known[-1] - known[0]) and known[-1] > known[0]:
        usual = f"{known[1]:.3g} to {known[-2]:.3g}"
        return f"band {name} is constant ({mine[3]:.3g}), where the model has learned {usual}"
    return None


def _shifted(name: str, mine: Floats, learned: LearnedValues) -> tuple[float, str] | None:
    known, least, most = (np.array(each[name]) for each in (learned.quantiles, learned.least, learned.most))
    spread = max(known[-2] - known[1], 1e-12)
    middle = slice(2, 5)  # quartiles
    below, above = (least - mine)[middle] / spread, (mine - most)[middle] / spread
    off = max(float(below.max()), float(above.max()))
    if off <= _SHIFT:
        return None
    word = "darker" if below.max() > above.max() else "brighter"
    text = (
        f"band {name} is {word} than all that the model has learned: half of its values lie below"
        f" {mine[3]:.3g}, where in what was learned it was {least[3]:.3g} to {most[3]:.3g}"
    )
    return off / _SHIFT, text


def _flat(name: str, mine: Floats, learned: LearnedValues) -> tuple[float, str] | None:
    own, (low, _) = float(mine[-2] - mine[1]), learned.contrast[name]
    if own >= _FLAT * low:
        return None
    text = (
        f"band {name} has little contrast, as in haze: 90 % of its values lie within {own:.3g}, where in what"
        f" was learned it was {low:.3g} at least"
    )
    return low * _FLAT / max(own, 1e-12), text


def _tinted(name: str, mine: float, learned: LearnedValues) -> tuple[float, str] | None:
    if name not in learned.colour:
        return None
    (low, high), known = learned.colour[name], learned.quantiles[name]
    off = max(low - mine, mine - high) / max(known[-2] - known[1], 1e-12)
    if off <= _HUE:
        return None
    text = (
        f"the colours are others: band {name} differs by {mine:+.3g} from the mean of all bands, where in"
        f" what was learned it did by {low:+.3g} to {high:+.3g}"
    )
    return off / _HUE, text


# -- the notes ---------------------------------------------------------------------------------------------


def is_mapped(card: ValuesCard) -> bool:
    """Whether a model takes values as they are, so that they must be in the unit that it has learned."""
    return card.scaling.mode == "fixed" and unit_of(card.learned) is not None


def remarks(name: str, card: ValuesCard, choice: Choice | None, found: Measured | None) -> list[Note]:
    """What to say of a raster's values before a model sees them.

    name : of the raster.
    choice : its unit; None where the model doesn't go by one.
    found : with the bands of the model; None: nothing was looked at.
    """
    learned = card.learned
    if learned is None:
        text = (
            f"'{card.name}' doesn't say which pixel values it has learned, so nothing says whether these are"
            " like them."
        )
        return [Note("values-unknown", text, about=name)]
    notes = []
    unit, own = unit_of(learned), None if choice is None else choice.unit
    if choice is not None and is_mapped(card) and own is not None and own != unit:
        text = (
            f"its values ({choice.evidence}) are taken for {own} and mapped to {unit}, which '{card.name}'"
            " has learned"
        )
        is_stated = choice.by == "stated"
        text += "." if is_stated else "; if that is wrong, state which values are black and white (LOW:HIGH)."
        parameter = None if is_stated else "values"
        notes.append(Note("values-mapped", text, about=name, kind="choice", parameter=parameter))
    unlike_them = [] if found is None else doubts(name, card, own, found)
    if unlike_them and not notes and choice is not None and choice.is_shared and own is not None:
        # Nothing was mapped, so there is no note yet on the assumed unit.
        (note,) = unlike_them
        said = (
            f"{note.text[:-1]}; they are taken for {own}: if that is wrong, state which values are black and"
            " white (LOW:HIGH)."
        )
        unlike_them = [replace(note, text=said, parameter="values")]
    return [*notes, *unlike_them]


def doubts(name: str, card: ValuesCard, own: ValueUnit | None, found: Measured) -> list[Note]:
    """What of values is unlike those that a model has learned, though mapped or scaled.

    name : of what they are from.  own : their unit.
    """
    if found.is_blank:
        text = "all its sampled pixels hold a fill value, such as 0: nothing can be found in it."
        return [Note("values-none", text, about=name, kind="doubt")]
    if not found.parts:
        return [Note("nodata-everywhere", "all its sampled pixels are without data.", about=name)]
    strange = None if card.learned is None else unlike(card.learned, card.bands, found, own, card.scaling)
    if strange is None:
        return []
    text = f"its values are unlike those that '{card.name}' has learned: {strange}."
    return [Note("values-unlike", text, about=name, kind="doubt")]


def check_mappable(name: str, card: ValuesCard, choice: Choice) -> None:
    """Raise UserError for values that can't be brought to those that a model has learned."""
    if is_mapped(card) and choice.is_strange:
        raise UserError(
            f"{name} has values that '{card.name}' can't be given ({choice.evidence}): it has learned"
            f" {unit_of(card.learned)}; state which of its values are black and white (LOW:HIGH).",
            parameter="values",
        )
