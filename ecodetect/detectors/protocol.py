"""The contract of a detector: what it needs, what it gets, what it returns.

A detector is one file in this folder and one line in `table.TABLE`. It declares a `KIND`: a `Plain`, or a
`learned.Kind` if it needs training. It knows only chips: no files, no CRS, no tiles. `scanning` runs it.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    runtime_checkable,
)

from ecodetect.bundle.card import Card, Scaling
from ecodetect.bundle.input_spec import scaling_for
from ecodetect.bundle.values import ValueUnit
from ecodetect.chip import Chip
from ecodetect.detections import Detections, GeometryType
from ecodetect.errors import UserError
from ecodetect.raster.bands import lacking, stand_ins
from ecodetect.sizes import Area, Length

if TYPE_CHECKING:
    from ecodetect.raster.reading import Raster

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settling:
    """How duplicates across tiles are settled (non-maximum suppression): the best score survives.

    criterion : "iou" (boxes, polygons by their boxes) or "distance" (centres, in pixels).
    limit : candidates above this IoU, or nearer than this distance, are the same object.
    """

    criterion: Literal["iou", "distance"]
    limit: float


@dataclass(frozen=True, slots=True)
class Needs:
    """What a detector needs of the pixels it gets.

    bands : names of the bands a chip must have, in this order.
    largest_px : width of the largest object it can report, in pixels of the grid it works on.
    gsd_m : metres per pixel to read at; None: the raster's own, or `own_px` of them along each side.
    stride_px : tile origins are multiples of this.
    reach_px : how far beyond an object the result depends on pixels (filters, radius of the receptive field).
    margin_px : candidates this far beyond a core take part in settling; 1 px for local detectors.
    is_local : the result at a place doesn't depend on the tiling. Tested, not just declared.
    settling : None: objects are exact and disjoint, so ownership settles them.
    survey : True when the detector first measures values (a threshold, a range) on the whole raster.
    bytes_per_pixel : working memory of `detect` per pixel of a chip, in addition to the chip.
    cost : time of `detect` per pixel of a chip on one core, where decoding a pixel of a raster is 1.
    is_threaded : `detect` uses all cores, so it gets chips one after another.
    on_gpu : it works on a GPU instead: several chips are processed at once, so that it needn't wait.
    scores : lowest score kept per class, unless the user sets one; None: all are kept.
    typical_px : width of a typical object; None: unknown. Without a GSD, a raster is resampled so that
        objects of the diameter that the user states have this width.
    map_px : side of a cell of the map of scores that detections come from (`Detections.score_map`), in
        pixels; it divides `stride_px`. None: there is no such map. A detector that has one declares
        `has_score_map`.
    least_px : width of a window, in pixels of the grid it works on: it can find nothing in narrower rasters.
    """

    bands: tuple[str, ...]
    largest_px: float
    gsd_m: float | None = None
    own_px: float = 1.0
    stride_px: int = 1
    reach_px: int = 0
    margin_px: float = 1.0
    is_local: bool = True
    settling: Settling | None = None
    survey: bool = False
    bytes_per_pixel: int = 24
    cost: float = 0.8  # as measured of `threshold` on RGB in deflate
    is_threaded: bool = False
    on_gpu: bool = False
    scores: tuple[float, ...] | None = None
    typical_px: float | None = None
    map_px: int | None = None
    least_px: int = 1

    @property
    def is_network(self) -> bool:
        """Whether it runs a network: its tiles take far more time than reading, and far more memory."""
        return self.is_threaded or self.on_gpu


@dataclass(frozen=True, slots=True)
class Scene:
    """What is known of the raster before a detector is built.

    bands : names of all its bands (`red`, `green`, `nir`, … or `band1`, …).
    gsd : metres per pixel along x and y, or None.
    dtype : numpy dtype name of the pixels.
    value_range : lowest and highest value that the dtype (or NBITS) can hold; None for floats.
    unit : the values that count as black and white; None: unknown, so values are used as they are.
    is_stated : whether the user stated the unit.
    """

    bands: tuple[str, ...]
    gsd: tuple[float, float] | None
    dtype: str
    value_range: tuple[float, float] | None
    unit: ValueUnit | None = None
    is_stated: bool = False

    @property
    def gsd_mean(self) -> float | None:
        """Side in metres of a square as large as a pixel, or None."""
        return None if self.gsd is None else math.sqrt(self.gsd[0] * self.gsd[1])


def scene_of(raster: Raster, unit: ValueUnit | None = None, *, is_stated: bool = False) -> Scene:
    """What is known of an open raster; see `Scene`."""
    return Scene(raster.bands, raster.grid.gsd, raster.dtype, raster.value_range, unit, is_stated)


@runtime_checkable
class Detector(Protocol):
    """Finds objects in chips."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> GeometryType: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def needs(self) -> Needs: ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """JSON-able: everything that determines the result; goes into the output's metadata."""
        ...

    def surveyed(self, samples: Iterable[Chip]) -> Detector:
        """This detector with the values it measures on the whole raster; itself unless `needs.survey`.

        samples : full-resolution blocks from a fixed lattice of the raster, with the bands of `needs`; read
            on each iteration.
        """
        ...

    def detect(self, chips: Sequence[Chip]) -> list[Detections]:
        """Detections of each chip, in the chip's own grid. All chips have the same size.

        Objects cut by a chip's border, or centred outside its `asked` window, may be reported or not: they
        belong to another tile. Where a chip `wants_map`, a detector that has one returns its map of scores.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Plain:
    """What a detector without training declares.

    purpose : one sentence, for `ecodetect models` and the docs; text after an empty line is left out.
    options : frozen dataclass of what a user may set; its docstring explains each field.
    build : the detector for a scene; raises UserError for impossible options.
    has_score_map : whether it has a map of scores that a scan can write.
    """

    purpose: str
    options: type[Any]
    build: Callable[[Any, Scene], Detector]
    has_score_map: bool = False


def bands_of(card: Card, scene: Scene) -> tuple[str, ...]:
    """Bands of the raster to read for those of the card; raises UserError where one is missing."""
    bands = stand_ins(card.bands, scene.bands)
    if bands is None:
        raise UserError(
            f"The model '{card.name}' needs bands {', '.join(card.bands)}; the raster "
            f"{lacking(card.bands, scene.bands)}",
            parameter="bands",
        )
    return bands


def scaling_of(card: Card, scene: Scene) -> Scaling:
    """The card's scaling for values of the scene's unit."""
    return scaling_for(card, scene.unit, is_stated=scene.is_stated)


def read_options(kind: type[T], given: Mapping[str, str], detector: str) -> T:
    """Options from `name=value` texts.

    kind : a frozen dataclass whose fields are bool, int, float, str, Literal, Length or Area, or optional
        ones.
    Raises UserError naming the option, what it must be, and the nearest known name.
    """
    hints = get_type_hints(kind)
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, text in given.items():
        key = name.replace("-", "_")
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UserError(f"{detector} has no option '{name}'; {hint}It has: {', '.join(known)}.")
        values[key] = _read_value(hints[key], text, key)
    return kind(**values)


def _read_value(hint: Any, text: str, name: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        inner = [kind for kind in get_args(hint) if kind is not type(None)]
        if text.lower() == "none" and len(inner) < len(get_args(hint)):
            return None
        errors = []
        for kind in inner:
            try:
                return _read_value(kind, text, name)
            except UserError as error:
                errors.append(error)
        either = [str(word) for kind in inner for word in get_args(kind)]
        if len(errors) == 1 or not either:
            raise errors[-1]
        raise UserError(f"{name} must be {', '.join(either)}, or a number or length; got '{text}'.")
    if origin is Literal:
        words = get_args(hint)
        if text not in words:
            raise UserError(f"{name} must be one of {', '.join(words)}; got '{text}'.")
        return text
    if hint in (Length, Area):
        return hint.parse(text, name=name)
    if hint is bool:
        if text.lower() not in ("true", "false", "yes", "no", "1", "0"):
            raise UserError(f"{name} must be yes or no; got '{text}'.")
        return text.lower() in ("true", "yes", "1")
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            what = "a whole number" if hint is int else "a number"
            raise UserError(f"{name} must be {what}; got '{text}'.") from None
    return text
