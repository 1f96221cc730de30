"""Features of an annotation file as they are read one by one: checked, collected, counted when left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.errors import LayerError
from ecodetect.formats.tangled import MOST_CROSSINGS, is_tangled
from ecodetect.grid import Grid
from ecodetect.layer import Geometries, Layer
from ecodetect.notes import Note, NoteKind
from ecodetect.wording import counted

OF_IMAGE = (
    "of_image"  # in a layer's metadata: its file is in pixels of an image, whose size it states, or None
)
Shape = Any  # a shapely geometry; shapely ships no types
FARTHEST = 1e9  # larger coordinates are neither pixels nor metres of any raster


class Unusable(ValueError):
    """One feature can't be used; the text is the reason, short enough for a list."""


def number(value: object, name: str = "a coordinate") -> float:
    """A finite number that can be a coordinate, from a number or its text; else raises Unusable."""
    try:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise Unusable(f"{name} is missing" if value is None else f"{name} is not a number")
        if isinstance(value, str) and "_" in value:  # Python reads 1_000
            raise ValueError
        result = float(value)
    except Unusable:
        raise
    except (ValueError, OverflowError):
        raise Unusable(f"'{str(value)[:20]}' is not a number") from None
    if not abs(result) <= FARTHEST:
        raise Unusable(f"{name} is {result:g}")
    return result


def polygon(corners: Sequence[tuple[float, float]]) -> Shape:
    """The area inside a ring of (x, y); raises Unusable when there is none."""
    if len(corners) < 3:
        raise Unusable("a polygon with fewer than three corners")
    return areal(shapely.Polygon(corners))


def check_box(x0: float, y0: float, x1: float, y1: float) -> None:
    """Raise Unusable for an upright rectangle without area or with swapped corners."""
    for name, low, high in (("x", x0, x1), ("y", y0, y1)):
        if low == high:
            raise Unusable("a box without area")
        if low > high:
            raise Unusable(f"a box whose {name}min {low:g} is more than its {name}max {high:g}")


def box(x0: float, y0: float, x1: float, y1: float) -> Shape:
    """An upright rectangle as a polygon; raises Unusable as `check_box` does."""
    check_box(x0, y0, x1, y1)
    return shapely.box(x0, y0, x1, y1)


def turned(corners: Sequence[tuple[float, float]], degrees: float, about: tuple[float, float]) -> Shape:
    """A ring turned about a point, clockwise as seen on the screen (y down)."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    ax, ay = about
    return polygon(
        [(ax + (x - ax) * cos - (y - ay) * sin, ay + (x - ax) * sin + (y - ay) * cos) for x, y in corners]
    )


def ellipse(cx: float, cy: float, rx: float, ry: float, degrees: float = 0.0) -> Shape:
    """An ellipse as a polygon of 64 corners with its area, turned clockwise about its centre."""
    if rx <= 0 or ry <= 0:
        raise Unusable("an ellipse without area")
    steps = 2 * np.pi * np.arange(64) / 64
    # The inscribed polygon is 0.16 % smaller than the ellipse; the radii make up for it.
    grow = math.sqrt(2 * np.pi / (64 * math.sin(2 * np.pi / 64)))
    ring = [(cx + grow * rx * math.cos(t), cy + grow * ry * math.sin(t)) for t in steps]
    return turned(ring, degrees, (cx, cy))


def areal(shape: Shape) -> Shape:
    """The polygonal part of a shape, mended where it crosses itself; raises Unusable where there is none."""
    try:
        if not shape.is_valid:
            if is_tangled(shape):
                raise Unusable(f"a shape that crosses itself more than {MOST_CROSSINGS} times")
            shape = shapely.make_valid(shape)
        if shape.geom_type not in ("Polygon", "MultiPolygon"):
            parts = [p for p in shapely.get_parts(shape) if p.geom_type in ("Polygon", "MultiPolygon")]
            shape = shapely.union_all(parts)
        if not shape.area > 0:
            raise Unusable("a shape without area")
    except shapely.errors.GEOSException:
        raise Unusable("a shape that can't be mended") from None
    return shape


class Collector:
    """Gathers the features of one file, then gives the Layer.

    path : the file, named in notes.
    unit : what the file calls a feature: row, annotation, object.
    size : width and height of the one image that the file is about, where it states them.
    images : names of all images that the file lists, also those without features.
    sizes : width and height of those whose size it states.
    are_ours : we wrote the file, in pixels as they are stored.
    frame : what its coordinates are: "pixel", or "share" of the image's width and height.
    """

    def __init__(self, path: Path, unit: str) -> None:
        self.path = path
        self.unit = unit
        self.notes: list[Note] = []
        self.size: tuple[int, int] | None = None
        self.images: tuple[str, ...] = ()
        self.sizes: dict[str, tuple[int, int]] = {}
        self.frame: Literal["pixel", "share"] = "pixel"
        self.are_ours = False
        self._shapes: list[Shape] = []
        self._rows: list[Mapping[str, Any]] = []
        self._reasons: dict[str, tuple[int, list[str]]] = {}

    def __len__(self) -> int:
        return len(self._shapes)

    def add(self, shape: Shape, values: Mapping[str, Any]) -> None:
        """A usable feature and its attributes: text, numbers or booleans; None where one is missing."""
        self._shapes.append(shape)
        self._rows.append(values)

    def leave_out(self, reason: object, where: str) -> None:
        """A feature that can't be used, and where it stands (line 13, object 4)."""
        count, places = self._reasons.get(str(reason), (0, []))
        if len(places) < 4:
            places.append(where)
        self._reasons[str(reason)] = (count + 1, places)

    def note(self, code: str, text: str, kind: NoteKind = "info") -> None:
        """Something the user should know, said once."""
        note = Note(code, text, about=self.path.name, kind=kind)
        if note not in self.notes:
            self.notes.append(note)

    def summary(self) -> Note | None:
        """What was left out and why, in one sentence; None when nothing was."""
        if not self._reasons:
            return None
        total = sum(count for count, _ in self._reasons.values())
        said = []
        for reason, (count, places) in list(self._reasons.items())[:5]:
            more = f" and {count - len(places)} more" if count > len(places) else ""
            said.append(f"{reason} ({', '.join(places)}{more})")
        if len(self._reasons) > 5:
            said.append(f"{len(self._reasons) - 5} other reasons")
        text = f"{counted(total, self.unit)} left out: {'; '.join(said)}."
        return Note("features-unusable", text, about=self.path.name, kind="doubt")

    def layer(self, grid: Grid | None) -> Layer:
        """The features in pixels of `grid`.

        Without a grid they are in pixels of the image whose size the file states; where it states none, in
        pixels or shares of an image that isn't known (a layer without grid, `metadata["frame"]` is "pixel" or
        "share").
        Raises LayerError when there were features and none can be used.
        """
        summary = self.summary()
        if summary and not self._shapes:
            raise LayerError(f"{self.path.name} has nothing usable; {summary.text}")
        notes = [*self.notes, *([summary] if summary else [])]
        if grid is None:
            notes.append(pixels_note(self.path) if self.frame == "pixel" else shares_note(self.path))
            grid = None if self.size is None else Grid(*self.size)
        geometry: Geometries = np.empty(len(self._shapes), dtype=object)
        geometry[:] = self._shapes
        if grid is not None and self.frame == "share":
            geometry = of_size(geometry, grid)
        names = dict.fromkeys(name for row in self._rows for name in row)
        columns = {name: column([row.get(name) for row in self._rows]) for name in names}
        metadata: dict[str, Any] = {"frame": self.frame} if grid is None else {}
        if not self.are_ours:
            metadata[OF_IMAGE] = self.size
        if self.images:
            metadata["images"] = self.images
        if self.sizes:
            metadata["image_sizes"] = self.sizes
        return Layer(geometry, columns, grid=grid, notes=tuple(notes), metadata=metadata, states_classes=True)


def of_size(shares: Geometries, grid: Grid) -> Geometries:
    """Geometries in shares of an image's width and height, in its pixels."""
    pixels: Geometries = shapely.transform(shares, lambda xy: xy * (grid.width, grid.height))
    return pixels


def pixels_note(path: Path) -> Note:
    """What to say of pixel coordinates without a raster."""
    text = "coordinates are pixels of the image; name it to put them on the map."
    return Note("pixel-coordinates", text, about=path.name, parameter="image")


def shares_note(path: Path) -> Note:
    """What to say of shares of an image's size without a raster."""
    text = "coordinates are shares of the image's size; name it to place them."
    return Note("share-coordinates", text, about=path.name, parameter="image")


def exchanged_note(name: str, *, in_degrees: bool) -> Note:
    """What to say of a file whose x and y are taken the other way round."""
    what = "latitude and longitude" if in_degrees else "x and y"
    text = f"{what} are swapped: only when swapped back they lie in the raster, so they are read that way."
    return Note("coordinates-exchanged", text, about=name, kind="doubt")


def column(values: Sequence[Any]) -> NDArray[Any]:
    """Values as int64 or bool if all are, as float64 (NaN where missing) if all are numbers, else as str."""
    present = [value for value in values if value is not None]
    if len(present) == len(values) and present:
        if all(type(value) is bool for value in present):
            return np.array(values, dtype=np.bool_)
        if all(type(value) is int and abs(value) < 2**63 for value in present):
            return np.array(values, dtype=np.int64)
    if all((type(value) in (int, float) and abs(value) < 2**63) or value != value for value in present):
        return np.array([math.nan if value is None else float(value) for value in values], dtype=np.float64)
    texts = ["" if value is None else str(value) for value in values]
    result = np.empty(len(texts), dtype=object)
    result[:] = texts
    return result


def scalar(value: object) -> Any:
    """An attribute of a foreign file if it is text, a number or a boolean, else None."""
    return value if isinstance(value, (str, bool, int, float)) else None
