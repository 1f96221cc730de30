"""The card of a model: what it is, what it needs, how good it was measured to be, and which values are sound.

`file` keeps it in one file with the weights.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ecodetect import strict_json
from ecodetect.errors import BundleError

SCHEMA = 2  # 1 had no graphs
GRAPHS = ("image", "windows", "boxes", "masks")
_LARGEST_STRIDE, _MOST_OUTPUTS = 1024, 64
# The widest network of torchvision gives 7,392 features; other outputs may have some for each class.
_MOST_FEATURES, _MOST_CHANNELS = 8192, 10**6
PERCENTILES = (1, 5, 25, 50, 75, 95, 99)  # of pixel values that a card states

# Limits on what a card may say. Values beyond them mean damage, and would cost unlimited time or memory.
FINEST, COARSEST = 1000.0, 16.0  # how many times finer or coarser than its GSD a raster may be
MOST_REACH_PX = 2048  # the largest that `torch_network.reach` finds
_GSDS = {"m": (1e-9, 1e5), "um": (1e-4, 1e6), "px": (1 / COARSEST, FINEST)}
_MOST_BANDS, _MOST_CLASSES = 4096, 10_000
_LONGEST_NAME, _LONGEST_TEXT = 500, 100_000
_FARTHEST = 1e6  # the network's input where there are no data; see `scaling.scaled`
_MOST_OFF = 1e12  # spans that an offset may lie from 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaling:
    """How pixel values become network input: (value - offset) / span, per band.

    mode : "fixed": offset and span are those of the card. "survey": they are measured on each raster, so that
        the percentiles `low` and `high` of samples of all its bands together become 0 and 1.
    offset, span : one per band; for "survey" in the network's own scale, applied after the percentiles.
    """

    mode: Literal["fixed", "survey"] = "fixed"
    offset: tuple[float, ...] = ()
    span: tuple[float, ...] = ()
    low: float = 1.0
    high: float = 99.0


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnedValues:
    """Which pixel values a model has learned from.

    dtypes : numpy names of the rasters' pixels.
    low, high : the values below that count as black and as white; None: their unit is unknown.
    quantiles : band -> `PERCENTILES` of the pixels; with a scaling of mode "survey" they are measured after
        scaling, so that 0 and 1 are its percentiles.
    least, most : band -> the range of these in single pieces of ground, leaving out 1 % of the pieces.
    contrast : band -> the range of the distance from the 5th to the 95th percentile in them.
    colour : band -> the range of the median difference from the mean of all bands in them.
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
class StoredGraph:
    """What a card says of a graph that lies beside the weights; see `runtime.graph_file`.

    sha256 : of its bytes.
    outputs : name -> channels.
    """

    sha256: str
    outputs: Mapping[str, int]

    @classmethod
    def of(cls, content: bytes, outputs: Mapping[str, int]) -> StoredGraph:
        """What a card says of a graph."""
        return cls(sha256=hashlib.sha256(content).hexdigest(), outputs=dict(outputs))


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """What a model is, what it needs, and how good it was measured to be.

    detector : name in `table.TABLE`.
    options : settings of the detector that its network and decoding depend on; JSON-able.
    bands : names, in the order of the network's input.
    fill : network input where there are no data, after scaling.
    unit : "m" or "um": the model works at `gsd` of that unit per pixel; "px": whatever a pixel is on the
        ground.
    gsd : metres (or micrometres) per pixel that rasters are read at; with unit "px", its width in the
        raster's own pixels (0.67: half again as fine); None: rasters are read as they are.
    gsd_range : GSDs of rasters that the model is meant for.
    diameter_range : diameters of objects seen in training, in `unit`.
    largest : width of the largest object that it can report, in `unit`.
    classes : names, 0-based.
    thresholds : purpose -> one score per class: "f1" (best F1) and "count" (counts nearly unbiased), from
        validation; NAME_f1 and NAME_count of another way to read the network, where there are several.
    trained_on : for each source: name, licence, places as cells of about 1 km (or exact), rasters, objects.
    metrics : for each measurement: split, how it was chosen, n, and the figures.
    agreement : what tests of locality measured: largest shift in px and change in score between tilings.
    learned : the pixel values it has learned from; None: the card doesn't say.
    reach_px : radius of the network's receptive field, in pixels of its input, as `torch_network.reach`
        measured it; "whole image" if each answer depends on all pixels. None: measured at each start.
    stride : sides of images given to the network are multiples of it; None: the card doesn't say.
    graphs : what ONNX Runtime runs: "image", from images to maps; "windows", from windows to scores; "boxes"
        and "masks", from the features of proposals to these. Empty: torch runs the network.
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
    learned: LearnedValues | None = None
    stride: int | None = None
    graphs: Mapping[str, StoredGraph] = field(default_factory=dict)
    licence: str = ""
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def gsd_m(self) -> float | None:
        """Metres per pixel that rasters are read at; None: their own."""
        return metres_per_pixel(self.unit, self.gsd)

    @property
    def unit_per_px(self) -> float:
        """How wide a pixel of the network's input is, in `unit`; 1 where rasters are read as they are."""
        return self.gsd or 1.0

    @property
    def largest_px(self) -> float:
        """Width of the largest object that it can report, in pixels of the network's input."""
        return self.largest / self.unit_per_px

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no blanks, no NaN."""
        text = dataclasses.asdict(self)
        if self.learned is None:  # as cards were before they could say it: their hashes stay
            del text["learned"]
        if self.schema == 1:
            del text["stride"], text["graphs"]
        return json.dumps(text, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, *, source: str) -> Card:
        """The card in `text`; raises BundleError unless it is a card of a known schema."""
        try:
            facts = strict_json.read(text)
        except ValueError as error:
            raise BundleError(f"The card of {source} is damaged ({error}).") from error
        if not isinstance(facts, dict) or "schema" not in facts:
            raise BundleError(f"{source} has no ecodetect card, so it isn't a bundle.")
        schema = facts["schema"]
        if isinstance(schema, int) and schema > SCHEMA:
            raise BundleError(
                f"{source} was made by a newer ecodetect (schema {schema}, this one reads {SCHEMA}); update."
            )
        try:
            if isinstance(schema, bool) or schema not in range(1, SCHEMA + 1):
                raise ValueError(f"schema can't be {_shown(schema)}")
            if schema == 1 and not {"stride", "graphs"}.isdisjoint(facts):
                raise TypeError("unknown: graphs, stride")
            facts["scaling"] = Scaling(**{k: _frozen(v) for k, v in facts["scaling"].items()})
            known = {f.name for f in dataclasses.fields(cls)}
            if facts.get("learned") is not None:
                facts["learned"] = LearnedValues(**{k: _frozen(v) for k, v in facts["learned"].items()})
            graphs = facts.get("graphs", {})
            facts["graphs"] = {
                name: StoredGraph(**{key: _frozen(value) for key, value in graph.items()})
                for name, graph in graphs.items()
            }
            made = ("scaling", "learned", "graphs")
            facts = {name: value if name in made else _frozen(value) for name, value in facts.items()}
            if set(facts) - known:
                raise TypeError(f"unknown: {', '.join(sorted(set(facts) - known))}")
            card = cls(**facts)
            _check(card)
            return card
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise BundleError(f"The card of {source} is damaged ({error}).") from error


def metres_per_pixel(unit: Literal["m", "um", "px"], gsd: float | None) -> float | None:
    """A GSD of this unit in metres; None for pixels, or where rasters are read as they are."""
    metres = {"m": 1.0, "um": 1e-6, "px": None}[unit]
    return None if metres is None or gsd is None else gsd * metres


def _check(card: Card) -> None:
    """Raise ValueError, naming the field, for a value that a card can't have.

    Far from the file, such a value would show up as a traceback or as a network that never ends.
    """
    bands = len(card.bands) if isinstance(card.bands, tuple) else 0
    classes = len(card.classes) if isinstance(card.classes, tuple) else 0
    rules: dict[str, bool] = {
        "name": _is_name(card.name),
        "description": _is_text(card.description),
        "detector": _is_name(card.detector),
        "licence": _is_text(card.licence),
        "command": _is_text(card.command),
        "bands": 0 < bands <= _MOST_BANDS
        and all(map(_is_name, card.bands))
        and len(set(card.bands)) == bands,
        "classes": 0 < classes <= _MOST_CLASSES
        and all(map(_is_name, card.classes))
        and len(set(card.classes)) == classes,
        "unit": isinstance(card.unit, str) and card.unit in _GSDS,
        "gsd": _is_gsd(card),
        "gsd_range": card.gsd_range is None or (_is_range(card.gsd_range) and _is_meant(card)),
        "diameter_range": card.diameter_range is None or _is_range(card.diameter_range),
        "largest": _is_size(card.largest),
        "fill": _is_number(card.fill) and abs(card.fill) <= _FARTHEST,
        "scaling": _is_scaling(card.scaling, bands),
        "thresholds": _is_table(card.thresholds, _is_text)
        and all(_are(scores, _is_share, classes) for scores in card.thresholds.values()),
        "agreement": _is_table(card.agreement, _is_text)
        and all(_is_number(value) and 0 <= value < 1e9 for value in card.agreement.values()),
        "reach_px": card.reach_px is None or _is_reach(card.reach_px),
        "learned": card.learned is None or _is_learned(card.learned, card.bands),
        "stride": card.stride is None or _is_count(card.stride, _LARGEST_STRIDE),
        "graphs": set(card.graphs) <= set(GRAPHS)
        and (not card.graphs or card.stride is not None)
        and all(map(_is_graph, card.graphs.values())),
        "options": isinstance(card.options, dict),
        "versions": _is_table(card.versions, _is_text) and all(map(_is_text, card.versions.values())),
        "trained_on": _are(card.trained_on, _is_mapping)
        and all(_are(entry.get("places", ()), _is_place) for entry in card.trained_on),
        "metrics": _are(card.metrics, _is_metric),
    }
    for name, is_right in rules.items():
        if not is_right:
            raise ValueError(f"{name} can't be {_shown(getattr(card, name))}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _is_gsd(card: Card) -> bool:
    if card.gsd is None:
        return card.unit == "px"
    least, most = _GSDS.get(card.unit, (0.0, 0.0))
    return _is_number(card.gsd) and least <= card.gsd <= most


def _is_meant(card: Card) -> bool:
    """Whether rasters that a model is meant for can be read at its GSD."""
    if card.unit == "px" or card.gsd is None or card.gsd_range is None:
        return True
    low, high = card.gsd_range
    # As training would write it for rasters at these limits, with the margin that `train` adds on both sides.
    return card.gsd / FINEST <= 2 * low and high <= 2 * card.gsd * COARSEST


def _is_scaling(scaling: Scaling, bands: int) -> bool:
    return (
        isinstance(scaling.mode, str)
        and scaling.mode in ("fixed", "survey")
        and _are(scaling.offset, _is_number, bands)
        and _are(scaling.span, _is_size, bands)
        and all(abs(low) <= _MOST_OFF * span for low, span in zip(scaling.offset, scaling.span, strict=True))
        and _is_number(scaling.low)
        and _is_number(scaling.high)
        and 0 <= scaling.low < scaling.high <= 100
    )


def _is_reach(value: Any) -> bool:
    if isinstance(value, str):
        return value == "whole image"
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_REACH_PX


def _is_learned(learned: LearnedValues, bands: tuple[str, ...]) -> bool:
    """Whether these can be the values that a model of these bands has learned."""
    low, high = learned.low, learned.high
    is_unit = (low is None and high is None) or (_is_value(low) and _is_value(high) and low < high)  # type: ignore[operator]
    tables = ((learned.quantiles, 7), (learned.least, 7), (learned.most, 7))
    pairs = ((learned.contrast, 2), (learned.colour, 2))
    return (
        is_unit
        and _are(learned.dtypes, _is_name)
        and all(
            isinstance(table, dict)
            and set(table) in (set(), set(bands))
            and all(_are(values, _is_value, count) for values in table.values())
            for table, count in (*tables, *pairs)
        )
        # What is compared with one of them needs them all; `colour` is younger than the others.
        and all(bool(table) == bool(learned.quantiles) for table, _ in (*tables, *pairs[:1]))
    )


def _is_graph(graph: StoredGraph) -> bool:
    return (
        isinstance(graph.sha256, str)
        and len(graph.sha256) == 64
        and _is_table(graph.outputs, _is_name)
        and len(graph.outputs) <= _MOST_OUTPUTS
        and all(
            _is_count(channels, _MOST_FEATURES if name == "features" else _MOST_CHANNELS)
            for name, channels in graph.outputs.items()
        )
    )


def _is_count(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _is_metric(value: Any) -> bool:
    """Whether this is a measurement: figures and words by name; for errors of counts, figures."""
    return _is_mapping(value) and all(
        value.get(name) is None or _is_number(value[name])
        for name in ("count_off", "count_low", "count_high")
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _is_table(value: Any, is_name: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(map(is_name, value))


def _is_place(value: Any) -> bool:
    """A cell by its south-western corner, or an extent, in degrees."""
    return isinstance(value, tuple) and len(value) in (2, 4) and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_value(value: Any) -> bool:
    """Whether pixels can hold this value, with room for arithmetic."""
    return _is_number(value) and abs(value) < 1e30


def _is_size(value: Any) -> bool:
    return _is_number(value) and 1e-12 <= value < 1e9


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_range(values: Any) -> bool:
    return _are(values, _is_size, 2) and bool(values[0] <= values[1])


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
