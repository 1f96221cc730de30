"""How a model sees the rasters that it learns from, in a `Contract`: bands, pixel size, scaling, classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ecodetect.annotations.annotated_raster import AnnotatedRaster, gsds, spacing
from ecodetect.bundle.card import Card, LearnedValues, Scaling, metres_per_pixel
from ecodetect.bundle.input_spec import InputSpec, input_spec
from ecodetect.bundle.scaling import surveyed
from ecodetect.bundle.value_survey import survey
from ecodetect.bundle.values import Measured, ValueUnit, learned_from, unit_of
from ecodetect.errors import UserError
from ecodetect.grid import Floats
from ecodetect.notes import Note
from ecodetect.raster.bands import listed, stand_ins

_SURVEYED = 256  # sampled cells of 512 x 512 px, in all rasters together
# An object as wide as this is drawn finely enough for a network that sees some tens of pixels around it, and
# small enough to be seen whole. Measured sets: trees-naip 8 px, nuclei 20, shrubs of zone1 24 at 0.45 m.
TYPICAL_PX, LEAST_PX = 24.0, 10.0
# Individuals stand no closer than they are wide; without sizes their spacing is all that is known of them.
_SPACING_PX = 32.0
# Small objects are enlarged: a network made for ImageNet sees little in a few pixels. On trees of 4 to 15 px,
# after as many pixels seen, F1 rose from 0.751 to 0.762, in a city left out from 0.638 to 0.660. Finer still
# wasn't tried, for it costs as much more.
FINER = 1.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Contract:
    """How a model sees rasters: the part of its card that concerns pixels and classes.

    unit : "m" or "um": rasters are read at `gsd` of it per pixel; "px": at `gsd` of their own
        pixels, as they are if it is None.
    """

    bands: tuple[str, ...]
    unit: Literal["m", "um", "px"]
    gsd: float | None
    scaling: Scaling
    fill: float
    classes: tuple[str, ...]
    learned: LearnedValues | None = None
    name: str = "the model"

    @classmethod
    def of(cls, card: Card) -> Contract:
        """That of a model."""
        return cls(
            bands=card.bands,
            unit=card.unit,
            gsd=card.gsd,
            scaling=card.scaling,
            fill=card.fill,
            classes=card.classes,
            learned=card.learned,
            name=card.name,
        )

    @property
    def gsd_m(self) -> float | None:
        """Metres per pixel that rasters are read at; None: their own, or `gsd` of them."""
        return metres_per_pixel(self.unit, self.gsd)

    @property
    def unit_per_px(self) -> float:
        """How wide a pixel is, in `unit`; 1 where rasters are read as they are."""
        return self.gsd or 1.0


def contract(
    sources: Sequence[AnnotatedRaster],
    *,
    classes: Sequence[str] | None = None,
    bands: Sequence[str] | None = None,
    gsd: float | None = None,
    scaling: Literal["auto", "fixed", "survey"] = "auto",
    typical_px: float = TYPICAL_PX,
    onto: ValueUnit | None = None,
) -> tuple[Contract, tuple[Note, ...]]:
    """How a model trained on these sources should see rasters, and sentences that say what was chosen.

    Parameters
    ----------
    classes, bands : in the order of the model; what the sources have in common if not given.
    gsd : metres per pixel; chosen from the objects' sizes if not given.
    scaling : "fixed": band by band to mean 0 and standard deviation 1 of all sources; "survey": percentiles
        of each raster, for pictures whose brightness means nothing. "auto": fixed if all rasters have 8 bits
        and their GSD is known, else survey.
    typical_px : wanted width of typical objects.
    onto : unit that a model has learned already: values are mapped to it, with a fixed scaling.

    Raises
    ------
    UserError
        When the sources have no band in common, or the GSD is known of some only.
    """
    notes: list[Note] = []
    chosen_bands = tuple(bands) if bands is not None else _common_bands(sources, notes)
    unit = _unit_of(sources)
    if unit == "px" and gsd is not None:
        raise UserError(
            "The rasters have no CRS, so a model can't have a GSD; state theirs.", parameter="gsd"
        )
    chosen_gsd = gsd
    if gsd is None:
        chosen_gsd = (_choose_step if unit == "px" else _choose_gsd)(sources, typical_px, notes)
    names = tuple(classes) if classes is not None else classes_of(sources)
    mode = scaling
    if mode == "auto":
        eight = all(source.dtype == "uint8" for source in sources)
        mode = "fixed" if onto is not None or (eight and unit == "m") else "survey"
    first = Contract(
        bands=chosen_bands,
        unit=unit,
        gsd=chosen_gsd,
        scaling=Scaling(mode=mode, offset=(0.0,), span=(1.0,)) if mode == "fixed" else Scaling(mode=mode),
        fill=0.0,
        classes=names,
        learned=_unit_learned(sources, mode, notes)
        if onto is None
        else LearnedValues(dtypes=(), low=onto.low, high=onto.high),
    )
    (mean, deviation), learned = _moments(sources, first)
    made = Scaling(mode=mode, offset=mean, span=deviation)
    return replace(first, scaling=made, learned=learned), tuple(notes)


def _unit_of(sources: Sequence[AnnotatedRaster]) -> Literal["m", "px"]:
    """Whether pixels have a size on the ground; raises UserError where only some have."""
    unknown = [source for source in sources if source.grid.gsd is None]
    known = [source for source in sources if source.grid.gsd is not None]
    if unknown and known:
        raise UserError(
            f"The pixel size of {known[0].name} is known, but not that of {unknown[0].name}; state it.",
            parameter="gsd",
        )
    return "px" if unknown else "m"


def _unit_learned(
    sources: Sequence[AnnotatedRaster], mode: Literal["fixed", "survey"], notes: list[Note]
) -> LearnedValues:
    """The unit that a model is to learn: that of most rasters; the others are mapped to it."""
    units = [source.unit.unit for source in sources if source.unit is not None]
    counts = Counter(unit for unit in units if unit is not None)
    strange = next((source for source in sources if source.unit is not None and source.unit.is_strange), None)
    if not counts or strange is not None:
        if counts and mode == "fixed" and strange is not None and strange.unit is not None:
            raise UserError(
                f"{strange.name} has values of no known unit ({strange.unit.evidence}), where other rasters"
                " have one; state which of its values are black and white (LOW:HIGH).",
                parameter="values",
            )
        return LearnedValues(dtypes=(), low=None, high=None)
    (unit, _), *others = counts.most_common()
    for other, number in others if mode == "fixed" else ():
        first = next(source for source in sources if source.unit is not None and source.unit.unit == other)
        more = f" and {number - 1} more" if number > 1 else ""
        evidence = "" if first.unit is None else first.unit.evidence
        text = f"its values ({evidence}) are taken for {other} and mapped to {unit}, which most rasters have"
        notes.append(Note("values-mapped", f"{text}.", about=f"{first.name}{more}", kind="choice"))
    return LearnedValues(dtypes=(), low=unit.low, high=unit.high)


def classes_of(sources: Sequence[AnnotatedRaster]) -> tuple[str, ...]:
    """The classes of the annotations that are learned, sorted."""
    found = {class_of(str(name)) for source in sources for name in source.annotations.label[source.kept]}
    return tuple(sorted(found)) or ("object",)


def class_of(label: str) -> str:
    """The class of an annotation with this label: without any class, all are objects."""
    return label or "object"


def _common_bands(sources: Sequence[AnnotatedRaster], notes: list[Note]) -> tuple[str, ...]:
    """Bands that all rasters have or can show, in the order of the first that has them."""
    kinds = list(dict.fromkeys(source.bands for source in sources))
    most = max(kinds, key=len)
    common = tuple(name for name in most if all(stand_ins((name,), bands) is not None for bands in kinds))
    if not common:
        texts = [_bands_of(sources, bands) for bands in kinds[:2]]
        raise UserError(
            f"Rasters have no band in common: {texts[0]}, but {texts[1]}; choose their bands.",
            parameter="bands",
        )
    if len(kinds) > 1:
        texts = [_bands_of(sources, bands) for bands in kinds[:3]]
        text = f"Bands differ: {'; '.join(texts)}; used are {', '.join(common)}."
        notes.append(Note("bands-differ", text, kind="choice"))
    return common


def _bands_of(sources: Sequence[AnnotatedRaster], bands: tuple[str, ...]) -> str:
    name = next(source.name for source in sources if source.bands == bands)
    return f"{name} has {listed(bands)}"


def _choose_gsd(sources: Sequence[AnnotatedRaster], typical_px: float, notes: list[Note]) -> float:
    """Metres per pixel at which objects are some `typical_px` wide, but hardly finer than the raster's."""
    own = gsds(sources)
    native = float(np.median(own))
    sizes = np.concatenate(
        [source.size_px[source.kept] * gsd for source, gsd in zip(sources, own, strict=True)]
    )
    sizes = sizes[np.isfinite(sizes)]
    if len(sizes):
        wanted = _wanted(sizes, typical_px)
        why = f"objects are {np.median(sizes):.3g} m wide in the median"
    else:
        spaces = np.concatenate(
            [spacing(source.xy[source.kept]) * gsd for source, gsd in zip(sources, own, strict=True)]
        )
        spaces = spaces[spaces > 0]
        wanted = float(np.median(spaces)) / _SPACING_PX if len(spaces) else native
        why = "their sizes are unknown, and neighbours"
        why += f" {np.median(spaces):.3g} m apart in the median" if len(spaces) else " too"
    # Reading at nearly the native GSD costs sharpness and wins nothing.
    is_native = native / 1.25 < wanted < 1.3 * native
    chosen = float(f"{native:.3g}" if is_native else f"{max(wanted, native / FINER):.2g}")
    if not is_native:
        text = f"Rasters are read at {chosen:g} m per pixel instead of {native:.3g} m: {why}."
        notes.append(Note("read-at", text, kind="choice"))
    if max(own) > 1.05 * min(own):
        text = f"Pixels are {min(own):.3g} to {max(own):.3g} m; all rasters are read at {chosen:.3g} m."
        notes.append(Note("read-at", text, kind="choice"))
    return chosen


def _choose_step(sources: Sequence[AnnotatedRaster], typical_px: float, notes: list[Note]) -> float | None:
    """The same in the rasters' own pixels, where their size on the ground is unknown; None: as they are.

    Without sizes nothing is chosen: two pictures may show the same at any scale.
    """
    sizes = np.concatenate([source.size_px[source.kept] for source in sources])
    sizes = sizes[np.isfinite(sizes)]
    wanted = _wanted(sizes, typical_px) if len(sizes) else 1.0
    if 1 / 1.25 < wanted < 1.3:
        return None
    chosen = float(f"{max(wanted, 1 / FINER):.2g}")
    text = (
        f"Pictures are read with pixels of {chosen:g} of their own, for objects are {np.median(sizes):.3g} px"
        " wide in the median."
    )
    notes.append(Note("read-at", text, kind="choice"))
    return chosen


def _wanted(sizes: Floats, typical_px: float) -> float:
    """Length of a pixel at which objects are wide enough, in the unit of their sizes."""
    least_px = typical_px * LEAST_PX / TYPICAL_PX
    return min(float(np.median(sizes)) / typical_px, float(np.percentile(sizes, 10)) / least_px)


def _moments(
    sources: Sequence[AnnotatedRaster], asked: Contract
) -> tuple[tuple[tuple[float, ...], tuple[float, ...]], LearnedValues]:
    """Mean and standard deviation of each band, after the percentiles of the raster for mode "survey"; and
    which values there are to learn.
    """
    bands = len(asked.bands)
    surveys: list[tuple[Measured, ValueUnit | None]] = []
    count, total, squares = 0, np.zeros(bands), np.zeros(bands)
    chosen = sources if len(sources) <= _SURVEYED else sources[:: -(-len(sources) // _SURVEYED)]
    each = max(1, _SURVEYED // len(chosen))
    for source in chosen:
        with source.open() as raster:
            spec = spec_of(asked, source)
            own_unit = None if source.unit is None else source.unit.unit
            surveys.append((survey(raster, spec.bands, most=each), own_unit))
            samples = raster.samples(spec.grid, spec.distinct, most=each)
            own = spec.scaling if spec.scaling.mode == "fixed" else surveyed(spec.scaling, samples)
            offset, span = (own.offset or (0.0,))[0], (own.span or (1.0,))[0]
            for chip in samples:
                values = chip.picked(spec.bands).pixels.astype(np.float64)
                good = np.isfinite(values).all(axis=0)
                if chip.valid is not None:
                    good &= chip.valid
                inside = (values[:, good] - offset) / span
                count += inside.shape[1]
                total += inside.sum(axis=1)
                squares += (inside**2).sum(axis=1)
    if not count:
        raise UserError("The rasters hold no valid pixel in the sampled places.")
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    # A band that hardly varies (an unused one) isn't blown up to as much noise as others have signal.
    deviation = np.maximum(deviation, 0.1 * deviation.max()) if deviation.max() > 0 else np.ones(bands)
    moments = tuple(float(f"{v:.6g}") for v in mean), tuple(float(f"{v:.6g}") for v in deviation)
    return moments, learned_from(surveys, asked.bands, unit_of(asked.learned), asked.scaling)


def spec_of(contract: Contract, source: AnnotatedRaster) -> InputSpec:
    """How a raster is seen by a model of this contract."""
    unit = None if source.unit is None else source.unit.unit
    is_stated = source.unit is not None and source.unit.by == "stated"
    return input_spec(contract, source, unit, is_stated=is_stated)
