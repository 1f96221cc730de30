"""A model in one file: weights and the card that says what they are for.

A bundle is a `.safetensors` file; its card is canonical JSON under the metadata key `ecodetect`. Opening one
runs no code and reads only the header. Format: https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ecodetect.errors import UserError
from ecodetect.whole_file import write_whole

KEY = "ecodetect"
SCHEMA = 1
PERCENTILES = (1, 5, 25, 50, 75, 95, 99)  # of pixel values that a card states

Weights = Mapping[str, NDArray[Any]]


class BundleError(UserError):
    """A file is no bundle, or one that this version can't read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaling:
    """How pixel values become network input: (value - offset) / span, per band.

    mode : "fixed": offset and span are those of the card. "survey": they are taken from each raster, the
        percentiles `low` and `high` of samples of all its bands together becoming 0 and 1.
    offset, span : one per band; for "survey" in the network's own scale, applied after the percentiles.
    """

    mode: Literal["fixed", "survey"] = "fixed"
    offset: tuple[float, ...] = ()
    span: tuple[float, ...] = ()
    low: float = 1.0
    high: float = 99.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Learned:
    """Which pixel values a model has learned from.

    dtypes : numpy names of the rasters' pixels.
    low, high : what counts as black and as white in the values below; None: they are of no known unit.
    quantiles : band -> `PERCENTILES` of the pixels; with a scaling of mode "survey" after it, so that 0 and 1
        are its percentiles.
    least, most : band -> between which these lie in single pieces of the ground, but for 1 % of the pieces.
    contrast : band -> between which the distance from the 5th to the 95th percentile lies in them.
    colour : band -> between which the median of its difference from the mean of all bands lies in them.
    """

    dtypes: tuple[str, ...]
    low: float | None
    high: float | None
    quantiles: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    least: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    most: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    contrast: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    colour: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """What a model is, what it needs, and how good it was measured to be.

    detector : name in `detectors.TABLE`.
    options : settings of the detector that its network and decoding depend on; JSON-able.
    bands : names, in the order of the network's input.
    fill : network input where there are no data, after scaling.
    unit : "m" or "um": the model works at `gsd` of that unit per pixel; "px": whatever a pixel is on the
        ground.
    gsd : metres (or micrometres) per pixel that rasters are read at; with unit "px" how many of the raster's
        own pixels one is wide (0.67: half again as fine), or None: as they are.
    gsd_range : GSDs of rasters that the model is meant for.
    diameter_range : diameters of objects seen in training, in `unit`.
    largest : width of the largest object that it can report, in `unit`.
    classes : names, 0-based.
    thresholds : purpose -> one score per class: "f1" (best F1) and "count" (counts nearly unbiased), from
        validation; NAME_f1 and NAME_count of another way to read the network, where there are several.
    trained_on : for each source: name, licence, places as cells of about 1 km (or exact), rasters, objects.
    metrics : for each measurement: split, how it was chosen, n, and the figures.
    agreement : what tests of locality measured: largest shift in px and change in score between tilings.
    learned : which pixel values it has learned from; None: the card doesn't say.
    reach_px : how far from a pixel the network's answer depends on others, in pixels of its input, as
        `runtime.reach` found it; "whole image" if it depends on all. None: to be found out at each start.
    licence, description, command : in words; the command that made the bundle.
    versions : of the packages that made it.
    """

    schema: int = SCHEMA
    name: str
    description: str = ""
    detector: str
    options: Mapping[str, Any] = field(default_factory=dict)
    bands: tuple[str, ...]
    scaling: Scaling = field(default_factory=Scaling)
    fill: float = 0.0
    unit: Literal["m", "um", "px"]
    gsd: float | None = None
    gsd_range: tuple[float, float] | None = None
    diameter_range: tuple[float, float] | None = None
    largest: float
    classes: tuple[str, ...]
    thresholds: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    trained_on: tuple[Mapping[str, Any], ...] = ()
    metrics: tuple[Mapping[str, Any], ...] = ()
    agreement: Mapping[str, float] = field(default_factory=dict)
    reach_px: int | Literal["whole image"] | None = None
    learned: Learned | None = None
    licence: str = ""
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def gsd_m(self) -> float | None:
        """Metres per pixel that rasters are read at; None: their own."""
        return metres_per_pixel(self.unit, self.gsd)

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no blanks, no NaN."""
        text = dataclasses.asdict(self)
        if self.learned is None:  # as cards were before they could say it: their hashes stay
            del text["learned"]
        return json.dumps(text, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, *, source: str) -> Card:
        """The card in `text`; raises BundleError for what is no card of a schema we know."""
        try:
            facts = json.loads(text)
            schema = facts["schema"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BundleError(f"{source} has no card of ecodetect, so it is no bundle.") from error
        if not isinstance(schema, int) or schema > SCHEMA:
            raise BundleError(
                f"{source} was made by a newer ecodetect (schema {schema}, this one reads {SCHEMA}); update."
            )
        try:
            facts["scaling"] = Scaling(**{k: _frozen(v) for k, v in facts["scaling"].items()})
            known = {f.name for f in dataclasses.fields(cls)}
            if facts.get("learned") is not None:
                facts["learned"] = Learned(**{k: _frozen(v) for k, v in facts["learned"].items()})
            made = ("scaling", "learned")
            facts = {name: value if name in made else _frozen(value) for name, value in facts.items()}
            if set(facts) - known:
                raise TypeError(f"unknown: {', '.join(sorted(set(facts) - known))}")
            card = cls(**facts)
            _check(card)
            return card
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise BundleError(f"The card of {source} is damaged ({error}).") from error


def metres_per_pixel(unit: Literal["m", "um", "px"], gsd: float | None) -> float | None:
    """What a GSD of this unit is in metres; None where it is none: pixels, or as they are."""
    metres = {"m": 1.0, "um": 1e-6, "px": None}[unit]
    return None if metres is None or gsd is None else gsd * metres


def _check(card: Card) -> None:
    """Raise ValueError, naming the field, where a value is none that a card can have.

    What is wrong here would show up as a traceback, or as a network without end, far from the file.
    """
    bands = len(card.bands) if isinstance(card.bands, tuple) else 0
    classes = len(card.classes) if isinstance(card.classes, tuple) else 0
    scaling = card.scaling
    rules: dict[str, bool] = {
        "name": _is_text(card.name) and bool(card.name),
        "description": _is_text(card.description),
        "detector": _is_text(card.detector),
        "licence": _is_text(card.licence),
        "command": _is_text(card.command),
        "bands": bool(bands) and all(map(_is_text, card.bands)) and len(set(card.bands)) == bands,
        "classes": bool(classes) and all(map(_is_text, card.classes)) and len(set(card.classes)) == classes,
        "unit": card.unit in ("m", "um", "px"),
        "gsd": card.unit == "px" if card.gsd is None else _is_size(card.gsd),
        "gsd_range": card.gsd_range is None or _are(card.gsd_range, _is_size, 2),
        "diameter_range": card.diameter_range is None or _are(card.diameter_range, _is_size, 2),
        "largest": _is_size(card.largest),
        "fill": _is_number(card.fill),
        "scaling": scaling.mode in ("fixed", "survey")
        and _are(scaling.offset, _is_number, bands)
        and _are(scaling.span, _is_size, bands)
        and _is_number(scaling.low)
        and _is_number(scaling.high)
        and 0 <= scaling.low < scaling.high <= 100,
        "thresholds": isinstance(card.thresholds, dict)
        and all(_are(scores, _is_number, classes) for scores in card.thresholds.values()),
        "agreement": isinstance(card.agreement, dict) and all(map(_is_number, card.agreement.values())),
        "reach_px": card.reach_px in (None, "whole image")
        or (_is_number(card.reach_px) and isinstance(card.reach_px, int) and 0 <= card.reach_px <= 4096),
        "learned": card.learned is None or _is_learned(card.learned, card.bands),
        "options": isinstance(card.options, dict),
        "versions": isinstance(card.versions, dict),
        "trained_on": _are(card.trained_on, _is_mapping)
        and all(_are(entry.get("places", ()), _is_place) for entry in card.trained_on),
        "metrics": _are(card.metrics, _is_mapping),
    }
    for name, is_right in rules.items():
        if not is_right:
            text = repr(getattr(card, name))
            raise ValueError(f"{name} can't be {text if len(text) <= 60 else text[:59] + '…'}")


def _is_learned(learned: Learned, bands: tuple[str, ...]) -> bool:
    """Whether these can be the values that a model of these bands has learned."""
    ends = (learned.low, learned.high)
    is_unit = ends == (None, None) or (all(map(_is_number, ends)) and ends[0] < ends[1])  # type: ignore[operator]
    tables = ((learned.quantiles, 7), (learned.least, 7), (learned.most, 7))
    pairs = ((learned.contrast, 2), (learned.colour, 2))
    return (
        is_unit
        and _are(learned.dtypes, _is_text)
        and all(
            isinstance(table, dict)
            and set(table) in (set(), set(bands))
            and all(_are(values, _is_number, count) for values in table.values())
            for table, count in (*tables, *pairs)
        )
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _is_place(value: Any) -> bool:
    """A cell by its south-western corner, or an extent, in degrees."""
    return isinstance(value, tuple) and len(value) in (2, 4) and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_size(value: Any) -> bool:
    return _is_number(value) and 0 < value < 1e9


def _are(values: Any, is_right: Callable[[Any], bool], count: int | None = None) -> bool:
    return (
        isinstance(values, tuple) and (count is None or len(values) == count) and all(map(is_right, values))
    )


def _frozen(value: Any) -> Any:
    """Lists as tuples, all the way down."""
    if isinstance(value, list):
        return tuple(_frozen(inner) for inner in value)
    if isinstance(value, dict):
        return {name: _frozen(inner) for name, inner in value.items()}
    return value


@dataclass(frozen=True, eq=False, slots=True)
class Bundle:
    """A card with its weights.

    weights : name -> array, as the network's state names them.
    """

    card: Card
    weights: Weights

    @property
    def hash(self) -> str:
        """Of card and weights: what an output says it was made with."""
        return _hash(self)


@lru_cache(maxsize=4)  # asked for with each of many rasters
def _hash(made: Bundle) -> str:
    digest = hashlib.sha256(made.card.to_json().encode())
    for name in sorted(made.weights):
        values = np.asarray(made.weights[name], order="C")
        digest.update(f"{name}{values.dtype.str}{values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()[:16]


def read_card(path: str | os.PathLike[str]) -> Card:
    """The card of a bundle; reads the header only."""
    with _opened(path) as file:
        text = (file.metadata() or {}).get(KEY)
    if text is None:
        raise BundleError(f"{path} holds weights without a card of ecodetect, so it is no bundle.")
    return Card.from_json(text, source=str(path))


def read(path: str | os.PathLike[str]) -> Bundle:
    """A bundle with its weights.

    Raises BundleError, in one sentence, for a file that is missing, cut short, damaged, or something else (a
    pickle with another name is refused, never opened).
    """
    return Bundle(read_card(path), read_weights(path))


def read_weights(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """The arrays of any .safetensors file, also one without a card (ImageNet weights)."""
    with _opened(path) as file:
        try:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(f"{path} is damaged ({error}).") from error


def _opened(path: str | os.PathLike[str]) -> Any:
    try:
        if not Path(path).is_file():
            raise BundleError(f"There is no file {path}.")
        return safe_open(path, framework="numpy")
    except SafetensorError as error:
        raise BundleError(f"{path} is no .safetensors file, or it is damaged or cut short.") from error
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror or error}.") from error


def write(path: str | os.PathLike[str], bundle: Bundle, *, replace: bool = True) -> None:
    """Write a bundle whole or not at all; the same bundle gives the same bytes.

    replace : what lies there by now; else that is an error.
    """
    target = Path(path)
    arrays = {name: np.asarray(values, order="C") for name, values in bundle.weights.items()}
    try:
        write_whole(target, save(arrays, metadata={KEY: bundle.card.to_json()}), replace=replace)
    except OSError as error:
        raise BundleError(f"{target} can't be written: {error.strerror or error}.") from error


def half(weights: Weights) -> dict[str, NDArray[Any]]:
    """The same weights with floats stored in 16 bits, as in the bundles that we ship."""
    return {
        name: values.astype(np.float16) if values.dtype.kind == "f" else values
        for name, values in weights.items()
    }
